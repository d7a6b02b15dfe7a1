"""Shuffled orders that are pure functions of seed and epoch, so that no generator state is kept or saved."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SORTED_UP_TO = 1 << 20  # numbers; more of them are not held in memory
ORDER_VERSION = 2  # version 1 sorted any number of keys
# 4 suffice for large sets (Luby and Rackoff); with fewer than 12, sets of 2 to 6 numbers are not even.
N_ROUNDS = 12


class Order(Protocol):
    """A sequence of example numbers, of which slices are taken."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Sequence[int] | NDArray[Any]: ...


def shuffled(n: int, *, seed: int, epoch: int, version: int = ORDER_VERSION) -> Order:
    """Permute 0..n-1: by sorting up to SORTED_UP_TO numbers, and without memory for more.

    Version 1 is the order of earlier versions, in which their runs resume.
    """
    if n <= SORTED_UP_TO or version == 1:
        return sample_order(n, seed=seed, epoch=epoch)
    return ShuffledRange(n, key=f"{seed} {epoch}")


def sample_order(n: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Permute the numbers 0..n-1 pseudo-randomly, depending only on n, seed and epoch.

    Each number gets a 64-bit key, a hash of (seed, epoch, number), and the keys are sorted; no library's generator
    can change the order. The hash is one-to-one, so no two keys are equal.
    Units: 16 bytes of memory per number while sorting, 8 for the result.
    Example:
        >>> sample_order(8, seed=0, epoch=0).tolist()
        [2, 1, 5, 0, 3, 4, 6, 7]
    """
    keys = np.arange(n, dtype=np.uint64)  # changed in place: there may be many
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys += _numbers_of(f"{seed} {epoch}", 1)[0]
    return np.argsort(_mix(keys)).astype(np.int64, copy=False)


class ShuffledRange:
    """The numbers 0..n-1 in a pseudo-random order that is computed for the places asked for, without a table.

    A place is cut into two halves of its bits, and each round changes one half by a hash of the other. Every round can
    be undone, so no two places get the same number. The bits may make numbers from n on: those are put in again until
    the result is below n, which takes less than one repetition on average.

    Source: Luby and Rackoff 1988 (Feistel networks); Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains",
        section 3 (repetition, "cycle walking"). Mitchell et al. 2022 shuffle on GPUs in this way.
    Example:
        >>> order = ShuffledRange(10**12, key="0 0")  # a table of it would take 8 TB
        >>> len(order), len(set(order[5_000:6_000].tolist()))
        (1000000000000, 1000)
    """

    def __init__(self, n: int, *, key: str) -> None:
        self.n = n
        n_bits = max(2, (n - 1).bit_length())
        self._right_bits = np.uint64(n_bits // 2)
        self._masks = tuple(np.uint64((1 << bits) - 1) for bits in (n_bits - n_bits // 2, n_bits // 2))
        self._keys = _numbers_of(key, N_ROUNDS)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, places: slice, /) -> NDArray[np.int64]:
        return self.at(np.arange(*places.indices(self.n)))

    def at(self, places: NDArray[np.integer]) -> NDArray[np.int64]:
        """The numbers at these places, each below n."""
        numbers = self._permuted(places.astype(np.uint64))
        while len(outside := np.flatnonzero(numbers >= self.n)):
            numbers[outside] = self._permuted(numbers[outside])
        return numbers.astype(np.int64)

    def _permuted(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        halves = [numbers >> self._right_bits, numbers & self._masks[1]]
        for round_number, key in enumerate(self._keys):
            changed = round_number % 2
            halves[changed] ^= _mix(halves[1 - changed] + key) & self._masks[changed]
        numbers = halves[0] << self._right_bits
        numbers |= halves[1]
        return numbers


def _numbers_of(key: str, n: int) -> NDArray[np.uint64]:
    """64-bit numbers that depend on the key only: a hash has room for four."""
    texts = [f"scratchlm order {key}" + (f" {i}" if i else "") for i in range(-(-n // 4))]
    hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
    return np.frombuffer(b"".join(hashes), dtype=">u8")[:n].astype(np.uint64)


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash each number in place, one-to-one.

    Source: the mixing steps of SplitMix64 (Steele, Lea, Flood 2014, figure 16).
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    return keys
