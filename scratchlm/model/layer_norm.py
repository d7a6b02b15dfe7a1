"""Layer normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import KernelKind


class LayerNorm(nn.Module):
    """Give each token's vector mean 0 and variance 1, then apply a trainable scale and shift.

    Without it the residual stream grows from block to block, and deep models do not train. `kernels="manual"`
    is the formula step by step; "torch" computes the same in one call.

    Shapes: x (..., E) -> (..., E); scale and shift (E,).
    Source: Ba et al. 2016, equation 4, with the variance divided by E as in GPT-2.
    Example:
        >>> LayerNorm(3)(torch.tensor([1.0, 2.0, 3.0])).mean().item()
        0.0
    """

    def __init__(self, emb_dim: int, *, eps: float = 1e-5, kernels: KernelKind = "torch") -> None:
        super().__init__()
        self.eps = eps  # GPT-2's value is 1e-5; avoids a division by zero for a constant vector
        self.kernels = kernels
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        if self.kernels == "torch":
            return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)
        mean = x.mean(dim=-1, keepdim=True)  # (..., 1)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)  # (..., 1)
        return self.scale * ((x - mean) / torch.sqrt(variance + self.eps)) + self.shift

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.scale.numel()}, kernels={self.kernels!r}"
