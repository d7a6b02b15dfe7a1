"""The gradients of a step: over its batches, and over the ranks that have a share of each."""

import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from scratchlm.core.batch import Batch
from scratchlm.core.errors import DataError
from scratchlm.training.batch_memory import BatchMemory
from scratchlm.training.distributed import Ranks
from scratchlm.training.finite import describe
from scratchlm.training.precision import Precision
from scratchlm.training.sharding import ParallelModel


def count_targets(batches: Sequence[tuple[str, Batch]], ranks: Ranks, *, step: int) -> tuple[int, int]:
    """The numbers of targets and of real tokens of a step, on all ranks.

    Raises: DataError when there is no target.
    """
    own = [sum(batch.n_targets for _, batch in batches), sum(batch.n_tokens for _, batch in batches)]
    n_targets, n_tokens = (int(count) for count in ranks.sum(own))
    if n_targets == 0:
        raise DataError(
            f"step {step} has no target, beginning with {batches[0][0]}; check masking and max_length."
        )
    return n_targets, n_tokens


def add_gradients(
    parallel: ParallelModel,
    batches: Sequence[tuple[str, Batch]],
    n_targets: int,
    precision: Precision,
    memory: BatchMemory,
    ranks: Ranks,
) -> list[float]:
    """Add up the gradients of the mean loss over the batches of all ranks; returns each batch's share of that loss.

    n_targets counts the step's targets on all ranks. The ranks exchange gradients once, in the last backward pass.
    Units: nats per target.
    """
    losses: list[Tensor] = []  # of this rank's shares
    n_per_rank = n_targets / ranks.world_size  # because the gradients are averaged over the ranks
    device = next(parallel.model.parameters()).device
    for number, (_, batch) in enumerate(batches, start=1):
        memory.prepare(batch, is_half=precision.name == "bf16")
        with nullcontext() if number == len(batches) else parallel.without_exchange():
            with precision.context():
                batch_loss = parallel.loss(batch.to(device)) / n_per_rank
            batch_loss.backward()
        losses.append(batch_loss.detach())
    return [value / ranks.world_size for value in ranks.sum(torch.stack(losses).tolist())]


def find_problem(
    batches: Sequence[tuple[str, Batch]], losses: Sequence[float], grad_norm: float, *, step: int
) -> str:
    """Say which batch's loss, or which gradient, is not finite; "" when all are."""
    for (name, _), loss in zip(batches, itertools.accumulate(losses)):
        if not math.isfinite(loss):
            return describe("loss", loss, step=step, where=name)
    if math.isfinite(grad_norm):
        return ""
    others = f" or one of the next {len(batches) - 1}" if len(batches) > 1 else ""
    return describe("gradient", grad_norm, step=step, where=f"{batches[0][0]}{others}")
