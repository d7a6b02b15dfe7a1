"""GELU: the activation function between the two matrices of a feed-forward network."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import KernelKind


class GELU(nn.Module):
    """Pass large positive values and suppress negative ones, smoothly, so that their gradient is not exactly 0.

    `kernels="manual"` writes the formula out; "torch" computes the same in one call.

    Shapes: any -> the same.
    Source: Hendrycks and Gimpel 2016. The default is the tanh approximation that GPT-2 was trained with; `exact`
        uses the error function, from which it differs by about 0.0005 at most.
    Example:
        >>> GELU()(torch.tensor([-3.0, 0.0, 3.0])).round(decimals=3).tolist()
        [-0.004000000189989805, 0.0, 2.996000051498413]
    """

    def __init__(self, *, kernels: KernelKind = "torch", exact: bool = False) -> None:
        super().__init__()
        self.kernels = kernels
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to every element."""
        if self.kernels == "torch":
            return F.gelu(x, approximate="none" if self.exact else "tanh")
        if self.exact:
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)  # 0.044715: fitted in the paper
        return 0.5 * x * (1 + torch.tanh(inner))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"kernels={self.kernels!r}, exact={self.exact}"
