"""Texts that say the same: equal once folded, or sharing nine tenths of their letter sequences.

A message that was sent twice must not sit both in training and in test data, or the test measures memory.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

import regex

from scratchlm.core.errors import ConfigError

SHINGLE_CHARS = 5
_DROPPED = regex.compile(r"[\p{P}\p{S}\p{Cf}]+")  # punctuation, symbols, invisible marks
_DIGITS = regex.compile(r"\d+")


def fold_text(text: str) -> str:
    """What is left of a text when case, punctuation, numbers' values and spacing do not matter.

    Example:
        >>> fold_text("WIN £1,000  now!!\\nCall 09061-701461")
        'win 0 now call 0'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_DIGITS.sub("0", _DROPPED.sub("", folded)).split())


def group_near_duplicates(texts: Sequence[str], *, threshold: float = 0.9) -> list[str]:
    """A group's name for every text: near-duplicates share it, all others differ.

    Two texts are near-duplicates when their folded forms are equal, or when the sets of their 5-letter
    sequences overlap by at least `threshold` (Jaccard: shared / all). Whoever is near the same text is in the
    same group. The name is the group's alphabetically first folded text, so it does not depend on the order
    of the texts.
    Raises: ConfigError for a threshold outside (0, 1].
    Source: the exact search by prefixes is that of Chaudhuri, Ganti, Kaushik 2006, section 4.
    Example:
        >>> groups = group_near_duplicates(["Call 123 now", "call 45 NOW!", "See you at six"])
        >>> groups[0] == groups[1], groups[2]
        (True, 'see you at six')
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie above 0 and at most at 1, got {threshold}; 0.9 is usual.")
    folded = [fold_text(text) for text in texts]
    distinct = sorted(set(folded))
    leader = list(
        range(len(distinct))
    )  # a forest: each number points to a smaller one of its group, or itself
    for one, other in _similar_pairs([_shingles(text) for text in distinct], threshold):
        first, second = sorted((_find(leader, one), _find(leader, other)))
        leader[second] = first
    name_of = {text: distinct[_find(leader, i)] for i, text in enumerate(distinct)}
    return [name_of[text] for text in folded]


def _shingles(text: str) -> frozenset[str]:
    n_starts = max(1, len(text) - SHINGLE_CHARS + 1)
    return frozenset(text[start : start + SHINGLE_CHARS] for start in range(n_starts))


def _similar_pairs(sets: Sequence[frozenset[str]], threshold: float) -> list[tuple[int, int]]:
    """All pairs with Jaccard similarity >= threshold, without comparing all pairs.

    Two sets that overlap so much must share one of their rarest members: with n members, at most
    n - ceil(threshold * n) can be missing from the other set, so among any more than that one is shared.
    """
    rarity = Counter(shingle for shingles in sets for shingle in shingles)
    holders: defaultdict[str, list[int]] = defaultdict(list)  # rare member -> smaller sets that hold it
    pairs = []
    for i in sorted(range(len(sets)), key=lambda i: len(sets[i])):
        size = len(sets[i])
        n_shared_at_least = math.ceil(threshold * size - 1e-9)  # 0.9 * 70 is a hair above 63
        rarest = sorted(sets[i], key=lambda shingle: (rarity[shingle], shingle))
        prefix = rarest[: size - n_shared_at_least + 1]
        candidates = {j for shingle in prefix for j in holders[shingle] if len(sets[j]) >= n_shared_at_least}
        for j in candidates:
            n_shared = len(sets[i] & sets[j])
            if n_shared >= threshold * (size + len(sets[j]) - n_shared) - 1e-9:
                pairs.append((j, i))
        for shingle in prefix:
            holders[shingle].append(i)
    return pairs


def _find(leader: list[int], i: int) -> int:
    while leader[i] != i:
        leader[i] = leader[leader[i]]
        i = leader[i]
    return i
