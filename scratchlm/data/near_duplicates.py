"""Texts that say the same: equal once folded, or sharing nine tenths of their letter sequences.

A message that was sent twice must not sit both in training and in test data, or the test measures memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import regex

from scratchlm.core.errors import ConfigError
from scratchlm.data.similar_sets import group_similar_sets

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
    Example:
        >>> groups = group_near_duplicates(["Call 123 now", "call 45 NOW!", "See you at six"])
        >>> groups[0] == groups[1], groups[2]
        (True, 'see you at six')
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must lie above 0 and at most at 1, got {threshold}; 0.9 is usual.")
    folded = [fold_text(text) for text in texts]
    distinct = sorted(set(folded))
    groups = group_similar_sets(map(_shingles, distinct), threshold).tolist()
    first: dict[int, str] = {}
    for group, text in zip(groups, distinct):
        first.setdefault(group, text)
    name_of = {text: first[group] for group, text in zip(groups, distinct)}
    return [name_of[text] for text in folded]


def _shingles(text: str) -> frozenset[str]:
    n_starts = max(1, len(text) - SHINGLE_CHARS + 1)
    return frozenset(text[start : start + SHINGLE_CHARS] for start in range(n_starts))
