"""Find texts that occur more than once, in one split or (worse) in two.

Exact copies are found among all texts, by 64 bits of their BLAKE2 digest: among ten million texts the chance of one
false copy is three in a million. Near-duplicates are searched only among the first texts of each split; the
statistics include the number compared.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.data.near_duplicates import group_near_duplicates

MAX_CHARS = 3_000_000  # texts compared in total, at about 90 bytes of memory each
N_EXAMPLES = 5
EXAMPLE_CHARS = 160


@dataclass(slots=True)
class _Split:
    name: str
    texts: array[int] = field(default_factory=lambda: array("Q"))  # digests of whole rows
    keys: array[int] = field(default_factory=lambda: array("Q"))  # of what must not occur in two splits
    near: list[tuple[str, str]] = field(default_factory=list)  # the first keys, and their labels
    near_chars: int = 0


class Duplicates:
    """Collect the texts of one or more splits, and find repeated ones.

    most_compared: maximum number of texts, in all splits together, among which near-duplicates are searched.
    """

    def __init__(self, names: list[str], *, most_compared: int) -> None:
        # Text, label and group of each text that `figures` compared.
        self.compared: list[tuple[str, str, str]] = []
        self._splits = [_Split(name) for name in names]
        self._max_texts = most_compared // max(1, len(names))
        self._max_chars = MAX_CHARS // max(1, len(names))

    def add(self, split: int, text: str, *, key: str, label: str = "") -> None:
        """Add one row: its text, and the key that test data must not share with training data."""
        into = self._splits[split]
        into.texts.append(_digest(text))
        into.keys.append(_digest(key))
        if len(into.near) < self._max_texts and into.near_chars + len(key) <= self._max_chars:
            into.near.append((key, label))
            into.near_chars += len(key)

    def figures(self) -> dict[str, Any]:
        """Statistics of duplicates, with the keys of `--json`."""
        n_rows = sum(len(split.texts) for split in self._splits)
        n_distinct = len(np.unique(np.concatenate([_array(split.texts) for split in self._splits])))
        rows = [(number, *near) for number, split in enumerate(self._splits) for near in split.near]
        groups = group_near_duplicates([key for _, key, _ in rows])
        self.compared = [(key, label, group) for (_, key, label), group in zip(rows, groups)]
        return {
            "distinct_texts": n_distinct,
            "exact_duplicates": n_rows - n_distinct,
            "near_duplicates": _near(rows, groups) if rows else None,
            "overlaps": self._overlaps(rows, groups),
        }

    def _overlaps(self, rows: list[tuple[int, str, str]], groups: list[str]) -> list[dict[str, Any]]:
        """For each pair of splits, the number of rows of the second that the first has, exactly or nearly."""
        members: list[set[str]] = [set() for _ in self._splits]
        for (number, _, _), group in zip(rows, groups):
            members[number].add(group)
        found = []
        for second in range(len(self._splits)):
            for first in range(second):
                one, other = self._splits[first], self._splits[second]
                shared = [
                    key
                    for (number, key, _), group in zip(rows, groups)
                    if number == second and group in members[first]
                ]
                found.append(
                    {
                        "first": one.name,
                        "second": other.name,
                        "rows": len(other.keys),
                        "exact": int(np.isin(_array(other.keys), _array(one.keys)).sum()),
                        "near": len(shared),
                        "compared": len(other.near),
                        "compared_with": len(one.near),
                        "examples": [_example(key) for key in dict.fromkeys(shared)][:N_EXAMPLES],
                    }
                )
        return found


def _near(rows: list[tuple[int, str, str]], groups: list[str]) -> dict[str, Any]:
    """Groups of near-duplicates; `conflicts` are groups whose members have different labels."""
    sizes = Counter(groups)
    first_key: dict[str, str] = {}
    labels: defaultdict[str, set[str]] = defaultdict(set)
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for (_, key, label), group in zip(rows, groups):
        first_key.setdefault(group, key)
        labels[group].add(label)
        spellings[group].add(key)
    conflicts = [group for group, names in labels.items() if len(names) > 1]
    n_distinct = len({key for _, key, _ in rows})
    often = [(group, n) for group, n in sizes.most_common() if n > 1]
    return {
        "compared": len(rows),
        "groups": len(sizes),  # number of texts when one of each group is kept
        "repeats": len(rows) - len(sizes),
        "repeats_exact": len(rows) - n_distinct,
        "repeats_not_exact": n_distinct - len(sizes),
        "conflicts": len(conflicts),
        "conflict_examples": [
            {"text": _example(first_key[group]), "labels": sorted(labels[group])}
            for group in conflicts[:N_EXAMPLES]
        ],
        "largest": [
            {"n": n, "spellings": len(spellings[group]), "text": _example(first_key[group])}
            for group, n in often[:N_EXAMPLES]
        ],
    }


def _example(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARS else text[: EXAMPLE_CHARS - 1] + "…"


def _digest(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _array(digests: array[int]) -> NDArray[np.uint64]:
    return np.frombuffer(digests, dtype=np.uint64) if digests else np.zeros(0, dtype=np.uint64)
