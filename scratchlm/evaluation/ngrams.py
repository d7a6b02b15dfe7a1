"""Hash all n-grams of a long sequence of ids, for any n, fast enough to search millions of tokens."""

import bisect
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


class NGrams:
    """A rolling hash of every n-gram of a sequence.

    The hash of an n-gram is the sum of id * BASE^position, modulo 2^64, divided by BASE^start: with precomputed prefix
    sums, each n costs one subtraction and one multiplication per position. Two different n-grams have the same hash
    with a probability of about 2^-64.
    Source: Rabin and Karp 1987.

    Example:
        >>> grams = NGrams([7, 8, 7, 8, 9])
        >>> [bool(grams.all(2)[0] == number) for number in grams.all(2)]
        [True, False, True, False]
    """

    def __init__(self, ids: npt.ArrayLike) -> None:
        values = _scrambled(np.asarray(ids).astype(np.uint64))
        self.n_ids = len(values)
        self._sums = np.zeros(self.n_ids + 1, dtype=np.uint64)
        np.cumsum(values * _powers(_BASE, self.n_ids), out=self._sums[1:])
        self._inverses = _powers(_INVERSE, self.n_ids)

    def all(self, n: int) -> Hashes:
        """The hashes of all n-grams in order; none when the sequence is shorter than n."""
        n_grams = max(0, self.n_ids - n + 1)
        return (self._sums[n : n + n_grams] - self._sums[:n_grams]) * self._inverses[:n_grams]

    def at(self, starts: npt.NDArray[np.intp], n: int) -> Hashes:
        """The hashes of the n-grams that begin at `starts`; each must end within the sequence."""
        return (self._sums[starts + n] - self._sums[starts]) * self._inverses[starts]


def is_among(numbers: Hashes, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Mark which of many hashes are in a sorted list; fast for millions of hashes and a list of thousands."""
    if len(wanted) == 0:
        return np.zeros(len(numbers), dtype=np.bool_)
    places = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
    return np.asarray(wanted[places] == numbers)


def longest_repeat(ids: npt.ArrayLike) -> int:
    """The length of the longest n-gram that occurs at least twice in a sequence of ids; occurrences may overlap.

    If an n-gram occurs twice, so does each part of it; therefore a binary search finds the longest.
    """
    grams = NGrams(ids)

    def is_unique(n: int) -> bool:
        return len(np.unique(grams.all(n))) == len(grams.all(n))

    return bisect.bisect_left(range(1, grams.n_ids), True, key=is_unique)


def _powers(base: int, n: int) -> Hashes:
    """base^0, base^1, ..., modulo 2^64."""
    factors = np.full(n, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _scrambled(values: npt.NDArray[Any]) -> Hashes:
    """Spread small ids over all 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values + np.uint64(1)) * np.uint64(_BASE)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
