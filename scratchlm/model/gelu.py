"""GELU: the bend between the two matrices of a feed-forward layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import KernelKind


class GELU(nn.Module):
    """Let positive numbers through and fade negative ones out, smoothly, so that a small gradient remains.

    `kernels="manual"` writes the formula out; "torch" computes the same in one call.

    Shapes: any -> the same.
    Source: Hendrycks and Gimpel 2016: the tanh approximation, which GPT-2 was trained with, or `exact`, the
        error function that it approximates to about 0.0005.
    Example:
        >>> GELU()(torch.tensor([-3.0, 0.0, 3.0])).round(decimals=3).tolist()
        [-0.004000000189989805, 0.0, 2.996000051498413]
    """

    def __init__(self, *, kernels: KernelKind = "torch", exact: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        """Apply the curve to every number."""
        if self.kernels == "torch":
            return F.gelu(x, approximate="none" if self.exact else "tanh")
        if self.exact:
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)  # 0.044715: fitted in the paper
        return 0.5 * x * (1 + torch.tanh(inner))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"kernels={self.kernels!r}, exact={self.exact}"
