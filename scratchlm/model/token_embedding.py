"""The token embedding: a vector for each token of the vocabulary."""

import math
import mmap
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.memory import LARGEST_KEPT_BLOCK


class TokenEmbedding(nn.Embedding):
    """Look up the vector of each token.

    Of its gradient only the rows of the batch's tokens are not zero. On a CPU the zeros of a large one take no memory:
    the system gives a page only when something is written to it. A head that shares the weight adds this gradient to
    its own, and only reads it: for 50,257 tokens of width 768 that saves 150 MB, and half the time.

    Shapes: ids (...) -> (..., E).
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the vectors of the ids."""
        weight = self.weight
        is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        if (
            is_plain
            and weight.nbytes > LARGEST_KEPT_BLOCK
            and weight.requires_grad
            and torch.is_grad_enabled()
        ):
            vectors: Tensor = _Lookup.apply(ids, weight)  # type: ignore[no-untyped-call]
            return vectors
        return super().forward(ids)


class _Lookup(torch.autograd.Function):
    """An embedding whose gradient has memory only where it is not zero; it is torch's to the last bit."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        """Look the vectors up."""
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        """Add up the gradients of each token."""
        (ids,) = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)  # (N, E)
        # torch.zeros would write every zero, and NumPy's asks for pages of 2 MB.
        pages = mmap.mmap(-1, math.prod(ctx.shape) * gradient.element_size(), access=mmap.ACCESS_COPY)
        zeros = torch.frombuffer(pages, dtype=gradient.dtype).view(ctx.shape)  # (V, E)
        return None, zeros.index_add_(0, ids.flatten(), gradient)
