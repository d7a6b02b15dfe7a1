"""Compute the result of a cheap function again in the backward pass, instead of keeping it from the forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def recomputed(result: Tensor, function: Callable[[], Tensor], *, is_wanted: bool = True) -> Iterator[None]:
    """Within the block, operations that would keep `result` for the backward pass do not: it calls `function` again.

    A linear layer keeps its input, from which it computes the gradient of its weight. When that is GELU or a norm of
    something that is kept anyway, computing it again takes little time and saves its memory. The gradients are the
    same to the last bit. Operations of one block share the tensor while the backward pass goes through them.

    Source: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 5.
    """
    if not (is_wanted and torch.is_grad_enabled()):
        yield
        return
    address, size = result.untyped_storage().data_ptr(), result.numel()
    n_kept, again, n_used = 0, None, 0

    def keep(tensor: Tensor) -> Tensor | torch.Size:
        nonlocal n_kept
        is_result = tensor.untyped_storage().data_ptr() == address and tensor.numel() == size
        if not (is_result and tensor.is_contiguous()):
            return tensor
        n_kept += 1
        return tensor.shape

    def restore(kept: Tensor | torch.Size) -> Tensor:
        nonlocal again, n_used
        if isinstance(kept, Tensor):
            return kept
        if again is None:
            with torch.no_grad():
                again = function()
        n_used, tensor = n_used + 1, again.view(kept)
        if n_used % n_kept == 0:
            again = None
        return tensor

    with saved_tensors_hooks(keep, restore):
        yield
