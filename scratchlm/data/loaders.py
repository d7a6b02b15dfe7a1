"""Group examples into batches, in an order that is a pure function of seed and epoch.

No generator state is kept: batch 17 of epoch 3 is the same whether the earlier batches were built or not, so
epoch and batch number are enough to resume a run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.order import ORDER_VERSION, Order, sample_order, shuffled

BATCHES_AT_ONCE = 64  # whose example numbers are computed together
BATCHES_PER_POOL = 50  # bucketing sorts the examples of this many batches: similar lengths, still well mixed


class Examples(Protocol):
    """Examples that can be grouped into batches.

    An attribute `lengths` (tokens of each) allows bucketing; `strata` (a class number of each) then keeps classes
    mixed. A method `order(seed=, epoch=)` replaces the shuffled order, as for a mixture by weight.
    """

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the examples with these indices."""
        ...


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
        self.order_version = ORDER_VERSION  # a run of an earlier version resumes in the order of that version
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
        stop, at_once = self._n_used, size * BATCHES_AT_ONCE
        parts = (order[at : min(at + at_once, stop)] for at in range(start * size, stop, at_once))
        return (self._share(indices) for part in parts for indices in _in_rows(np.asarray(part), size))

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
        order = np.asarray(self._order(number)[: self._n_used])
        return self._bucketed(order, number) if self.bucket_by_length else _in_rows(order, self.batch_size)

    @property
    def _n_used(self) -> int:
        n = len(self.examples)
        return n - n % self.batch_size if self.drop_last else n

    def _order(self, number: int) -> Order:
        n = len(self.examples)
        if not self.shuffle:
            return range(n)
        if hasattr(self.examples, "order"):
            own: Order = self.examples.order(seed=self.seed, epoch=number)
            return own
        return shuffled(n, seed=self.seed, epoch=number, version=self.order_version)

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
