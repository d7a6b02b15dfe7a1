"""Mix windows of several texts by weight, in an order that is a pure function of seed and epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.order import ShuffledRange
from scratchlm.data.windows import TokenWindows

SLOTS_AT_ONCE = 1 << 16  # of an order, when its windows are counted


def check_mixture_weights(weights: Sequence[float], names: Sequence[str]) -> None:
    """Check that there is a weight above zero for each of several sources.

    Raises: ConfigError.
    """
    if len(weights) != len(names) or len(names) < 2:
        raise ConfigError(
            f"data weights mix two sources or more and need one number each, got {len(weights)} for {len(names)} "
            f"({', '.join(names) or 'none'}); give as many --data-weights as --data."
        )
    if not (all(weight > 0 for weight in weights) and sum(weights) < math.inf):
        raise ConfigError(
            f"data weights must be above zero, got {', '.join(f'{weight:g}' for weight in weights)}, and their sum "
            "finite; leave out a source that is not wanted."
        )


class MixedWindows:
    """Windows of several texts as one set of examples, from which shuffled epochs draw by weight.

    An epoch has as many windows as all texts together, and each text has its share of them: its quota. A text with a
    larger weight than its length is repeated within the epoch, one with a smaller weight gives a part of its windows,
    and the next epoch continues with the rest: all windows of a text come once, shuffled, before any comes again.
    Without weights every window comes once an epoch.

    Units: weights are shares of the tokens; they are divided by their sum.
    Raises: DataError for a weight too small for a single window.
    Example:
        >>> parts = [TokenWindows(range(n), context_length=2) for n in (9, 25)]
        >>> MixedWindows(parts, weights=[3, 1]).quotas.tolist()  # of 4 and 12 windows
        [12, 4]
    """

    def __init__(self, parts: Sequence[TokenWindows], *, weights: Sequence[float] | None = None) -> None:
        self.parts = parts
        self.sizes = np.array([len(part) for part in parts])
        self.starts = np.cumsum(self.sizes) - self.sizes  # the number of each part's first window
        self.quotas = self.sizes if weights is None else _quotas(weights, len(self))
        if not self.quotas.all():
            raise DataError(
                f"each source must give at least one of the {len(self):,} windows of an epoch, got quotas of "
                f"{', '.join(map(str, self.quotas))}; raise the smallest weight, or leave that source out."
            )

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the windows with these indices."""
        numbers = np.asarray(indices)
        part_of = self.part_of(numbers)
        members = {part: np.flatnonzero(part_of == part) for part in np.unique(part_of)}
        batches = [
            self.parts[part].batch(numbers[places] - self.starts[part]) for part, places in members.items()
        ]
        order = torch.from_numpy(np.argsort(np.concatenate(list(members.values()))))
        masks = [batch.attention_mask for batch in batches if batch.attention_mask is not None]
        return Batch(
            inputs=torch.cat([batch.inputs for batch in batches])[order],
            targets=torch.cat([batch.targets for batch in batches])[order],
            attention_mask=torch.cat(masks)[order] if masks else None,
        )

    def part_of(self, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        """The part that each window belongs to."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def order(self, *, seed: int, epoch: int) -> MixedOrder:
        """The order of an epoch, which `BatchLoader` uses."""
        return MixedOrder(self, seed=seed, epoch=epoch)

    def n_drawn(self, n_places: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
        """Count the windows of each part among the first places of an epoch's order."""
        counts, order = np.zeros_like(self.sizes), self.order(seed=seed, epoch=epoch)
        is_short = n_places <= len(self) // 2  # else the other places are fewer
        first, stop = (0, n_places) if is_short else (n_places, len(self))
        for start in range(first, stop, SLOTS_AT_ONCE):
            numbers = order[start : min(start + SLOTS_AT_ONCE, stop)]
            counts += np.bincount(self.part_of(numbers), minlength=len(self.parts))
        return counts if is_short else self.quotas - counts


class MixedOrder:
    """The windows of one epoch of a mixture, computed for the places asked for.

    The epoch's slots are shuffled; each text owns as many as its quota. A slot's number within them, after those of
    the earlier epochs, says which pass over the text it belongs to, and where in that pass; each pass has an order of
    its own.
    """

    def __init__(self, mixed: MixedWindows, *, seed: int, epoch: int) -> None:
        self.mixed, self.seed, self.epoch = mixed, seed, epoch
        self._slots = ShuffledRange(len(mixed), key=f"{seed} {epoch}")
        self._first_slots = np.cumsum(mixed.quotas) - mixed.quotas

    def __len__(self) -> int:
        return len(self.mixed)

    def __getitem__(self, places: slice, /) -> NDArray[np.int64]:
        slots = self._slots[places]
        owners = np.searchsorted(self._first_slots, slots, side="right") - 1
        draws = slots - self._first_slots[owners] + self.epoch * self.mixed.quotas[owners]
        passes, at = np.divmod(draws, self.mixed.sizes[owners])
        numbers: NDArray[np.int64] = self.mixed.starts[owners]
        for owner, number in np.unique(np.stack([owners, passes]), axis=1).T.tolist():
            own = np.flatnonzero((owners == owner) & (passes == number))
            order = ShuffledRange(
                len(self.mixed.parts[owner]), key=f"{self.seed} source {owner} pass {number}"
            )
            numbers[own] += order.at(at[own])
        return numbers


def _quotas(weights: Sequence[float], n: int) -> NDArray[np.int64]:
    """Whole numbers in the proportion of the weights, n in all: those that lose most by rounding get one more."""
    exact = np.asarray(weights, dtype=np.float64) / math.fsum(weights) * n
    quotas = np.floor(exact).astype(np.int64)
    most_lost = np.argsort(quotas - exact, kind="stable")
    quotas[most_lost[: n - int(quotas.sum())]] += 1
    return quotas
