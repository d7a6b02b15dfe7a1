"""SwiGLU: the gated feed-forward network of the Llama family."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.linear import build_linear
from scratchlm.model.recompute import recomputed


class SwiGLU(nn.Module):
    """Widen each token's vector, multiply it by a gate computed from the same vector, and project it back.

    It has three matrices instead of two, so models choose F below 4 E to keep the number of parameters.

    Shapes: x (B, T, E) -> (B, T, E); inside (B, T, F).
    Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6 (FFN_SwiGLU).
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg, only=("emb_dim", "ff_dim", "linear_bias"))
        self.gate = build_linear(config.emb_dim, config.feed_forward_dim, bias=config.linear_bias)
        self.up = build_linear(config.emb_dim, config.feed_forward_dim, bias=config.linear_bias)
        self.down = build_linear(config.feed_forward_dim, config.emb_dim, bias=config.linear_bias)
        self.recomputes = False  # cheap steps are computed again in the backward pass, as in `FeedForward`

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position in the same way."""
        gate, up = self.gate(x), self.up(x)  # (B, T, F)
        active = F.silu(gate)  # (B, T, F)
        with recomputed(active, lambda: F.silu(gate), is_wanted=self.recomputes):
            product = active * up  # (B, T, F)
        with recomputed(product, lambda: F.silu(gate) * up, is_wanted=self.recomputes):
            output: Tensor = self.down(product)  # (B, T, E)
        return output
