"""Cross-entropy: the negative log-probability that the model gave to the actual next tokens."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import DataError


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half-precision values to float32, because sums over thousands of them need its precision."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX, label_smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """Sum the cross-entropy over all targets, and count the targets.

    With a sum and a count, batches of unequal size can be averaged correctly: divide once, at the very end.

    Shapes: logits (..., V), targets (...) -> a scalar with a gradient, and an int. Targets equal to ignore_index have
        no loss and are not counted.
    Units: nats, summed. Half-precision logits are summed in float32.
    Raises: DataError when the shapes do not fit.
    Example:
        >>> loss_sum, n_targets = cross_entropy_sum(torch.zeros(1, 3, 4), torch.tensor([[2, 0, -100]]))
        >>> round(loss_sum.item() / n_targets, 4)  # four equally likely tokens: ln 4
        1.3863
    """
    if logits.shape[:-1] != targets.shape:
        raise DataError(
            f"logits must have the shape of targets and one more dimension, got logits {tuple(logits.shape)} "
            f"and targets {tuple(targets.shape)}; use logits[:, -1] when there is one target per row."
        )
    logits = at_least_float32(logits)
    loss_sum = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        targets.flatten(),
        ignore_index=ignore_index,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return loss_sum, int((targets != ignore_index).sum())


def head_cross_entropy(
    states: Tensor,
    head: nn.Module,
    targets: Tensor,
    *,
    reduction: Literal["sum", "none"] = "sum",
    label_smoothing: float = 0.0,
    chunk_size: int | None = None,
) -> Tensor:
    """Apply the output head at targets only, and compute the cross-entropy there.

    Over a large vocabulary the head is the most expensive layer, and in many batches few positions have a target.
    `chunk_size` limits how many positions' logits are computed at once.

    Shapes: states (..., E), targets (...) with IGNORE_INDEX where there is none -> a scalar, or with reduction="none"
        (...), which is 0 where there is no target.
    Units: nats. Half-precision logits are turned into float32 first.
    """
    is_target = targets != IGNORE_INDEX  # (...)
    states, wanted = states[is_target], targets[is_target]  # (N, E), (N,)
    n_at_once = chunk_size or max(1, len(wanted))
    losses = [
        F.cross_entropy(
            at_least_float32(head(some)), some_wanted, reduction=reduction, label_smoothing=label_smoothing
        )
        for some, some_wanted in zip(
            torch.split(states, n_at_once), torch.split(wanted, n_at_once), strict=True
        )
    ]
    if reduction == "sum":
        return torch.stack(losses).sum()
    per_target = torch.cat(losses)  # (N,)
    return per_target.new_zeros(targets.shape).masked_scatter(is_target, per_target)  # (...)
