"""RMSNorm: layer normalisation without subtracting the mean."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import KernelKind


class RMSNorm(nn.Module):
    """Divide each token's vector by its root mean square, then apply a trainable scale.

    It is cheaper than LayerNorm and works as well: normalising the scale is enough to keep deep models
    stable. `kernels="manual"` writes the formula out; "torch" computes the same in one call.

    Shapes: x (..., E) -> (..., E); scale (E,).
    Source: Zhang and Sennrich 2019, equation 4; used as in Llama.
    Example:
        >>> RMSNorm(2)(torch.tensor([3.0, -3.0])).tolist()
        [0.9999994039535522, -0.9999994039535522]
    """

    def __init__(self, emb_dim: int, *, eps: float = 1e-5, kernels: KernelKind = "torch") -> None:
        super().__init__()
        self.eps = eps
        self.kernels = kernels
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension."""
        if self.kernels == "torch":
            scale = self.scale.to(x.dtype)  # bfloat16 under autocast
            return F.rms_norm(x, scale.shape, scale, self.eps)
        mean_square = x.square().mean(dim=-1, keepdim=True)  # (..., 1)
        return self.scale * (x * torch.rsqrt(mean_square + self.eps))

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.scale.numel()}, eps={self.eps}, kernels={self.kernels!r}"
