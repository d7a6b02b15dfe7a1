"""Group near-duplicates: texts equal but for case, punctuation and numbers, or sharing 90 % of their 5-grams.

A message that occurs twice must not be in both training and test data, or the test measures memorization. The
grouping is exact, and fast even when many texts are copies of one template.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

SHINGLE_CHARS = 5
SIMILAR = 0.9  # Jaccard similarity from which two texts are near-duplicates
_DROPPED = regex.compile(r"[\p{P}\p{S}\p{Cf}]+")  # punctuation, symbols, invisible marks
_DIGITS = regex.compile(r"\d+")


def fold_text(text: str) -> str:
    """Normalize a text for comparison: without case, punctuation, spacing and the values of numbers.

    Example:
        >>> fold_text("WIN £1,000  now!!\\nCall 09061-701461")
        'win 0 now call 0'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_DIGITS.sub("0", _DROPPED.sub("", folded)).split())


def group_near_duplicates(texts: Sequence[str]) -> list[str]:
    """The name of every text's group; near-duplicates share one.

    Two texts are near-duplicates when their folded forms are equal, or when the sets of their 5-character sequences
    have a Jaccard similarity (shared / all) of at least 0.9. Near-duplicates of the same text are in
    one group. Its name is the alphabetically first folded text, so it does not depend on the order of the
    texts.
    Example:
        >>> groups = group_near_duplicates(["Call 123 now", "call 45 NOW!", "See you at six"])
        >>> groups[0] == groups[1], groups[2]
        (True, 'see you at six')
    """
    folded = [fold_text(text) for text in texts]
    distinct = sorted(set(folded))
    groups = group_similar_sets(map(_shingles, distinct), SIMILAR).tolist()
    first: dict[int, str] = {}
    for group, text in zip(groups, distinct):
        first.setdefault(group, text)
    name_of = {text: first[group] for group, text in zip(groups, distinct)}
    return [name_of[text] for text in folded]


def _shingles(text: str) -> frozenset[str]:
    n_starts = max(1, len(text) - SHINGLE_CHARS + 1)
    return frozenset(text[start : start + SHINGLE_CHARS] for start in range(n_starts))


FIRST_COMPARED = 256  # candidates of a set to compare first; after a match most others are in its group
SLACK = 1e-6  # tolerance of the bounds; the comparison itself is exact

Ints = NDArray[np.signedinteger[Any]]


def group_similar_sets(sets: Iterable[Sequence[str] | frozenset[str]], threshold: float) -> Ints:
    """Return each set's group number: sets with Jaccard similarity >= threshold share one, transitively.

    Members that always occur together, such as the letters of a word filled into a template, count as one
    with a weight. Only sets that share one of their rarest members are compared, and only if they are in
    different groups.
    Source: bounds on prefixes, sizes and positions of Xiao and others 2008 (PPJoin), for weighted members.
    """
    members, sizes = _numbered(sets)
    n = len(sizes)
    order = np.argsort(sizes, kind="stable")  # small sets first: later ones are at least as large
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    table = _weighted(members, np.repeat(place, sizes), n)
    labels = _Join(table, sizes[order], threshold).run()
    return labels[place]


def _numbered(sets: Iterable[Sequence[str] | frozenset[str]]) -> tuple[Ints, Ints]:
    """The members of all sets as numbers, concatenated, and the sets' sizes."""
    numbers: dict[str, int] = {}
    parts, sizes = [], []
    for one in sets:
        found = [numbers.setdefault(member, len(numbers)) for member in one]
        parts.append(np.array(found, dtype=np.int32))
        sizes.append(len(found))
    flat = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
    return flat, np.array(sizes, dtype=np.int64)


@dataclass(slots=True)
class _Table:
    """The sets as rows of weighted members, rarest first; members of only one set are dropped."""

    starts: Ints  # start of each row in `members`, and the end of the last
    members: Ints
    weights: Ints  # for each member: how many original members it represents
    counts: Ints  # for each member: the number of sets that contain it


def _weighted(members: Ints, rows: Ints, n_rows: int) -> _Table:
    """Merge members that occur in exactly the same sets."""
    if not len(members):
        return _Table(*(np.zeros(size, dtype=np.int64) for size in (n_rows + 1, 0, 0, 0)))
    by_member = np.argsort(members, kind="stable")
    counts = np.bincount(members)
    begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
    marks = np.random.Generator(np.random.PCG64(0)).integers(0, 1 << 63, size=(2, n_rows), dtype=np.uint64)
    # Members with equal sums are in the same sets (126 random bits per set).
    sums = [np.add.reduceat(mark[rows[by_member]], begins) for mark in marks]
    _, first, classes = np.unique(np.stack(sums), axis=1, return_index=True, return_inverse=True)
    classes = classes.reshape(-1)
    weights = np.bincount(classes)
    by_rarity = np.argsort(counts[first], kind="stable")
    rank = np.empty(len(first), dtype=np.int64)
    rank[by_rarity] = np.arange(len(first))
    stands_for_all = np.zeros(len(counts), dtype=np.bool_)
    stands_for_all[first] = counts[first] > 1
    kept = stands_for_all[members]
    kept_rows, kept_members = rows[kept], rank[classes[members[kept]]]
    sorted_ = np.lexsort((kept_members, kept_rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(kept_rows, minlength=n_rows))])
    return _Table(starts, kept_members[sorted_], weights[by_rarity], counts[first][by_rarity])


class _Join:
    """Compares each set with the smaller sets that could be similar to it, and joins their groups."""

    def __init__(self, table: _Table, sizes: Ints, threshold: float) -> None:
        n = len(sizes)
        self.table, self.sizes, self.threshold = table, sizes, threshold
        self.labels = np.arange(n)
        self._size: list[int] = sizes.tolist()  # fast access to single sizes
        self._first_of_size: list[int] = sizes.searchsorted(
            np.arange(max(self._size, default=0) + 2)
        ).tolist()
        self._groups: dict[int, list[int]] = {}  # members of more than one set
        self._compared_with = np.full(n, -1)
        self._weight_in_set = np.zeros(len(table.weights), dtype=np.int64)
        self._begins = np.concatenate([[0], np.cumsum(table.counts)])
        self._filled = np.zeros(len(table.weights), dtype=np.int64)
        n_entries = self._begins[-1]
        # for each member: the sets that contain it, small first
        self._holders = np.zeros(n_entries, dtype=np.int32)
        # size of the largest set that could be similar by it
        self._reach = np.zeros(n_entries, dtype=np.float32)

    def run(self) -> Ints:
        """Compare all sets; returns the groups' numbers."""
        for i in range(len(self.sizes)):
            members = self.table.members[self.table.starts[i] : self.table.starts[i + 1]]
            weights = self.table.weights[members]
            left = weights[::-1].cumsum()[::-1]  # the overlap of a pair whose first common member is this one
            reach = left * (1 + self.threshold) / self.threshold - self.sizes[i]
            self._weight_in_set[members] = weights
            for member, max_size in zip(members.tolist(), reach.tolist()):
                if max_size < self.threshold * self._size[i] - SLACK:
                    break
                self._compare(i, self._candidates(i, member, max_size))
            self._weight_in_set[members] = 0
            for member, max_size in zip(members.tolist(), reach.tolist()):
                if max_size < self._size[i] - SLACK:
                    break  # no larger set can be similar by this member only
                at = self._begins[member] + self._filled[member]
                self._holders[at], self._reach[at] = i, max_size
                self._filled[member] += 1
        return self.labels

    def _candidates(self, i: int, member: int, max_size: float) -> NDArray[Any]:
        """The sets that contain the member, have a size in range, and belong to other groups."""
        begin = int(self._begins[member])
        held: NDArray[Any] = self._holders[begin : begin + self._filled[member]]
        if not len(held):
            return held
        smallest = math.ceil(self.threshold * self._size[i] - SLACK)
        largest = min(math.floor(max_size + SLACK), self._size[i])
        rows = [self._first_of_size[smallest], self._first_of_size[largest + 1]]
        low, high = held.searchsorted(np.array(rows, dtype=held.dtype))
        found: NDArray[Any] = held[low:high]
        is_other = self.labels[found] != self.labels[i]
        is_other &= self._compared_with[found] != i
        is_other &= self._reach[begin + low : begin + high] >= self._size[i] * (1 - SLACK)
        others: NDArray[Any] = found[is_other]
        return others

    def _compare(self, i: int, candidates: NDArray[Any]) -> None:
        n_compared = FIRST_COMPARED
        while len(candidates):
            some, candidates = candidates[-n_compared:], candidates[:-n_compared]
            self._compared_with[some] = i
            shared = self._overlaps(some)
            either = self._size[i] + self.sizes[some] - shared
            for j in some[shared >= self.threshold * either - 1e-9].tolist():
                self._join(i, j)
            candidates = candidates[self.labels[candidates] != self.labels[i]]
            n_compared *= 4

    def _overlaps(self, rows: NDArray[Any]) -> Ints:
        """The total weight of the members that each of these sets shares with the current set."""
        starts, ends = self.table.starts[rows], self.table.starts[rows + 1]
        lengths = ends - starts
        offsets = np.cumsum(lengths) - lengths
        places = np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())
        return np.add.reduceat(self._weight_in_set[self.table.members[places]], offsets)

    def _join(self, i: int, j: int) -> None:
        one, other = int(self.labels[i]), int(self.labels[j])
        if one == other:
            return
        groups = [self._groups.pop(label, [label]) for label in (one, other)]
        small, large = sorted(groups, key=len)
        label = one if large is groups[0] else other
        self.labels[small] = label
        large.extend(small)
        self._groups[label] = large
