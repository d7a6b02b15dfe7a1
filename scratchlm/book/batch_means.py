"""The book's mean over a loader: batch by batch, each weighing the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor
from torch.utils.data import DataLoader


def mean_over_batches(
    data_loader: DataLoader[tuple[Tensor, Tensor]],
    batch_loss: Callable[[Tensor, Tensor], Tensor],
    num_batches: int | None,
) -> float:
    """The mean of the first batches' mean losses; nan without a batch.

    A last batch that is smaller weighs as much as a full one, as the book's figures have it. The true mean is
    `scratchlm.evaluation.loss.mean_loss`.
    """
    n_batches = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    if n_batches <= 0:
        return float("nan")
    batches = itertools.islice(data_loader, n_batches)
    return sum(batch_loss(inputs, targets).item() for inputs, targets in batches) / n_batches
