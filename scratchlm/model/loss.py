"""Cross-entropy: the negative log-probability that the model gave to the actual next tokens."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import DataError
from scratchlm.core.matrix_product import product_into
from scratchlm.core.memory import LARGEST_KEPT_BLOCK, give_freed_memory_back
from scratchlm.model.linear import is_plain_linear

LOGITS_AT_ONCE = 1 << 22  # 16 MiB in float32, which a processor's cache can hold
POSITIONS_AT_ONCE = 256  # but at least so many positions: products of fewer rows are slow


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

    Over a large vocabulary the logits are by far the largest tensor of a step: 50,257 for every token, where a block
    has 768. So they are computed for `chunk_size` positions at a time (default: see `chunk_length`), and in
    training each part gives its gradients before the next is computed; see `ChunkedCrossEntropy`.

    Shapes: states (..., E), targets (...) with IGNORE_INDEX where there is none -> a scalar, or with reduction="none"
        (...), which is 0 where there is no target.
    Units: nats. Half-precision logits are turned into float32 first.
    """
    is_target = targets != IGNORE_INDEX  # (...)
    if bool(is_target.all()):  # as in pre-training: nothing to select
        states, wanted = states.reshape(-1, states.shape[-1]), targets.flatten()  # (N, E), (N,)
    else:
        states, wanted = states[is_target], targets[is_target]  # (N, E), (N,)
    vocab_size = getattr(head, "out_features", states.shape[-1])
    n_at_once = chunk_size or chunk_length(len(wanted), vocab_size)
    needs_gradient = torch.is_grad_enabled() and (states.requires_grad or has_trainable(head))
    if reduction == "sum" and len(wanted) > n_at_once and needs_gradient and is_plain_linear(head):
        total: Tensor = ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            states, head.weight, head.bias, wanted, label_smoothing, n_at_once
        )
        return total

    def loss_of(some: Tensor, some_wanted: Tensor) -> Tensor:
        logits = at_least_float32(head(some))  # (n_at_once, V)
        return F.cross_entropy(logits, some_wanted, reduction=reduction, label_smoothing=label_smoothing)

    n_at_once = max(1, n_at_once)
    parts = list(zip(torch.split(states, n_at_once), torch.split(wanted, n_at_once), strict=True))
    if len(parts) > 1 and needs_gradient:  # the backward pass computes the logits again
        losses = [checkpoint(loss_of, *part, use_reentrant=False) for part in parts]
    else:
        losses = [loss_of(*part) for part in parts]
    if reduction == "sum":
        return torch.stack(losses).sum()
    per_target = torch.cat(losses)  # (N,)
    return per_target.new_zeros(targets.shape).masked_scatter(is_target, per_target)  # (...)


def chunk_length(n_targets: int, vocab_size: int) -> int:
    """The number of positions whose logits are computed at once: parts of equal length, as large as is useful."""
    n_at_most = max(POSITIONS_AT_ONCE, LOGITS_AT_ONCE // vocab_size)
    n_parts = math.ceil(n_targets / n_at_most)
    return math.ceil(n_targets / max(1, n_parts))


def has_trainable(module: nn.Module) -> bool:
    """Whether a module has a trainable parameter."""
    return any(parameter.requires_grad for parameter in module.parameters())


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum the cross-entropy of a linear output head without ever holding the logits of all positions.

    The gradient of the logits is softmax minus the target, so it needs nothing of the later computation but a factor.
    Each part of the positions therefore gives its share of the gradients during the forward pass, and the backward
    pass only multiplies them by that factor. Under autocast the products are in its dtype, everything else and the
    sum of the weight's gradient in float32.

    Shapes: states (N, E), weight (V, E), bias (V,) or None, targets (N,) -> a scalar.
    Source: torch 2.13's chunked `linear_cross_entropy` computes the same, but without label smoothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        n_at_once: int,
    ) -> Tensor:
        """Compute the sum, and the gradients for a factor of 1."""
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if weight.nbytes > LARGEST_KEPT_BLOCK:
            give_freed_memory_back()  # the weight's gradient comes from the system, on top of what the heap keeps
        with torch.autocast(device, enabled=False):
            rows, matrix = states.to(dtype), weight.to(dtype)
            offset = None if bias is None else bias.to(dtype)
            total = at_least_float32(states.new_zeros(()))
            grad_states = torch.empty_like(rows) if needs_states else None
            grad_weight = torch.zeros_like(at_least_float32(weight)) if needs_weight else None
            grad_bias = torch.zeros_like(at_least_float32(bias)) if needs_bias and bias is not None else None
            # Every part uses the same memory: new blocks of this size come from the system, page by page.
            scores = rows.new_empty(min(n_at_once, len(rows)), len(matrix))
            log_probs = at_least_float32(scores)  # the same memory, if scores are float32
            weight_part = torch.empty_like(matrix)
            for first in range(0, len(rows), n_at_once):
                part = slice(first, first + n_at_once)
                some = rows[part]  # (n, E)
                logits = scores[: len(some)]  # (n, V)
                product_into(logits, some, matrix)
                if offset is not None:
                    logits += offset
                gradient = log_probs[: len(some)]
                if dtype != log_probs.dtype:
                    gradient.copy_(logits)
                total += _loss_with_gradient(gradient, targets[part], label_smoothing)
                gradient = gradient if gradient.dtype == dtype else logits.copy_(gradient)
                if grad_states is not None:
                    product_into(grad_states[part], gradient, matrix.mT)
                if grad_weight is not None and grad_weight.dtype == dtype:
                    product_into(grad_weight, gradient.mT, some.mT, add=True)
                elif grad_weight is not None:
                    grad_weight += torch.mm(gradient.mT, some, out=weight_part)
                if grad_bias is not None:
                    grad_bias += gradient.sum(dim=0)
        ctx.gradients = (
            None if grad_states is None else grad_states.to(states.dtype),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the gradients by the factor, in place; they can be used once."""
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "the gradients of a chunked loss can be computed only once"
        return (*(None if g is None else g.mul_(factors[0]) for g in gradients), None, None, None)


def _loss_with_gradient(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """The summed loss; puts its gradient, softmax minus the target distribution, in the place of the logits (n, V)."""
    log_probs = torch.log_softmax(logits, dim=-1, out=logits)  # (n, V)
    columns = targets[:, None]  # (n, 1)
    loss_sum = -log_probs.gather(1, columns).sum()
    if label_smoothing > 0:
        loss_sum = (1 - label_smoothing) * loss_sum - label_smoothing * log_probs.mean(dim=-1).sum()
    gradient = log_probs.exp_()
    if label_smoothing > 0:
        gradient -= label_smoothing / logits.shape[-1]
    one = torch.full_like(columns, -1 + label_smoothing, dtype=gradient.dtype)
    gradient.scatter_add_(1, columns, one)
    return loss_sum
