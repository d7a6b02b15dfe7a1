"""The loss: how surprised the model was by what really came next."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import DataError


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision values as float32, others as they are: a sum over thousands of them needs the digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy_sum(
    logits: Tensor, targets: Tensor, *, ignore_index: int = IGNORE_INDEX, label_smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """The model's surprise at every target, added up, and over how many targets.

    A sum and a count, so that batches of unequal size can be averaged rightly: divide once, at the very end.

    Shapes: logits (..., V), targets (...) -> a scalar with a gradient, and an int. Where targets hold
        ignore_index there is no loss, and the count leaves them out.
    Units: nats, summed. Half-precision logits are summed in float32.
    Raises: DataError when the shapes do not fit.
    Example:
        >>> loss_sum, n_targets = cross_entropy_sum(torch.zeros(1, 3, 4), torch.tensor([[2, 0, -100]]))
        >>> round(loss_sum.item() / n_targets, 4)  # four equally likely tokens: ln 4
        1.3863
    """
    if logits.shape[:-1] != targets.shape:
        raise DataError(
            f"logits must be targets' shape and one dimension more, got logits {tuple(logits.shape)} "
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
