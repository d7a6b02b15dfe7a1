"""Group examples into batches, in an order that is a pure function of seed and epoch.

No generator state is kept: batch 17 of epoch 3 is the same whether the earlier batches were built or not, so
epoch and batch number are enough to resume a run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError

BATCHES_PER_POOL = 50  # bucketing sorts the examples of this many batches: similar lengths, still well mixed


class Examples(Protocol):
    """Examples that can be grouped into batches.

    An attribute `lengths` (tokens of each) allows bucketing; `strata` (a class number of each) then keeps classes
    mixed.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the examples with these indices."""
        ...


def sample_order(n: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Permute the numbers 0..n-1 pseudo-randomly, depending only on n, seed and epoch.

    Each number gets a 64-bit key, a hash of (seed, epoch, number), and the keys are sorted; no library's generator
    can change the order. The hash is one-to-one, so no two keys are equal.
    Units: 16 bytes of memory per number while sorting, 8 for the result.
    Source: the key's mixing steps are those of SplitMix64 (Steele, Lea, Flood 2014, figure 16).
    Example:
        >>> sample_order(8, seed=0, epoch=0).tolist()
        [2, 1, 5, 0, 3, 4, 6, 7]
    """
    digest = hashlib.sha256(f"scratchlm order {seed} {epoch}".encode()).digest()
    keys = np.arange(n, dtype=np.uint64)  # changed in place: there may be many millions
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys += np.uint64(int.from_bytes(digest[:8], "big"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    return np.argsort(keys).astype(np.int64, copy=False)


class BatchLoader:
    """Batches of examples, epoch after epoch.

    shuffle gives each epoch its own order; without it the examples keep theirs. drop_last drops a last batch
    that is not full. bucket_by_length groups examples of similar length, so that batches have little padding;
    with shuffle the order of the batches is random. With `strata` (a class number each), every batch has
    about the same share of each class, even if one class has longer examples than another.

    Raises: ConfigError for a batch_size below 1 or bucketing examples without lengths; DataError when there
        is no batch.
    Example:
        >>> from scratchlm.data.windows import TokenWindows
        >>> loader = BatchLoader(TokenWindows(range(9), context_length=2), batch_size=2, shuffle=False)
        >>> [batch.inputs.tolist() for batch in loader.epoch(0, start=1)]
        [[[4, 5], [6, 7]]]
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        bucket_by_length: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}.")
        if bucket_by_length and not hasattr(examples, "lengths"):
            raise ConfigError(
                f"bucket_by_length needs examples with lengths, got {type(examples).__name__}; switch it off."
            )
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.bucket_by_length = bucket_by_length
        self.rank, self.world_size = 0, 1
        if len(self) == 0:
            raise DataError(
                f"a loader needs at least one batch, got {len(examples)} examples for batches of "
                f"{batch_size}; give more data or a smaller batch_size."
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.examples), self.batch_size)
        return full if self.drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, number: int, *, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch from batch `start` on; earlier ones are not built.

        Raises: ConfigError when start is outside the epoch.
        """
        if not 0 <= start <= len(self):
            raise ConfigError(f"start must lie in 0..{len(self)}, the batches of an epoch, got {start}.")
        if self.bucket_by_length:
            return (self._share(indices) for indices in self.indices(number)[start:])
        order, size = self._order(number), self.batch_size
        first_places = range(start * size, len(order), size)  # no list: an epoch may have millions of batches
        return (self._share(order[first : first + size]) for first in first_places)

    def for_rank(self, rank: int, world_size: int) -> BatchLoader:
        """The same batches, each with only the examples rank, rank + world_size, ... of it.

        A batch with fewer examples than ranks is a filler without targets for some of them.
        """
        loader = copy.copy(self)
        loader.rank, loader.world_size = rank, world_size
        return loader

    def _share(self, indices: NDArray[np.int64]) -> Batch:
        own = indices[self.rank :: self.world_size]
        return self.examples.batch(own) if len(own) else self.examples.batch(indices[:1]).as_filler()

    def indices(self, number: int) -> list[NDArray[np.int64]]:
        """Indices of the examples in each batch of an epoch, in order."""
        order = self._order(number)
        return self._bucketed(order, number) if self.bucket_by_length else _in_rows(order, self.batch_size)

    def _order(self, number: int) -> NDArray[np.int64]:
        n = len(self.examples)
        order = sample_order(n, seed=self.seed, epoch=number) if self.shuffle else np.arange(n)
        return order[: n - n % self.batch_size] if self.drop_last else order

    def _strata(self, pool: NDArray[np.int64]) -> NDArray[Any]:
        strata = getattr(self.examples, "strata", None)
        return np.zeros(len(pool), dtype=np.int64) if strata is None else np.asarray(strata)[pool]

    def _bucketed(self, order: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
        lengths = np.asarray(self.examples.lengths)  # type: ignore[attr-defined]
        pools = _in_rows(order, self.batch_size * BATCHES_PER_POOL) if self.shuffle else [order]
        batches = [
            batch
            for pool in pools
            for batch in _in_rows(pool[_by_length(lengths[pool], self._strata(pool))], self.batch_size)
        ]
        if not self.shuffle:
            return batches
        return [batches[i] for i in sample_order(len(batches), seed=self.seed, epoch=number)]


def _by_length(lengths: NDArray[Any], strata: NDArray[Any]) -> NDArray[np.int64]:
    """Positions ordered by length rank within the stratum, so that every stratum has its longest at the end."""
    place = np.empty(len(lengths))  # rank within the stratum, as a share of it
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        ranked = members[np.argsort(lengths[members], kind="stable")]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.argsort(place, kind="stable")


def _in_rows(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
