"""SwiGLU: the feed-forward layer of the Llama family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model.config import GPTConfig, as_config


class SwiGLU(nn.Module):
    """Think about each token by itself, with a gate: one matrix says what, another how much of it.

    Three matrices instead of two, so models choose F below 4 E to spend as many weights.

    Shapes: x (B, T, E) -> (B, T, E); inside (B, T, F).
    Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6 (FFN_SwiGLU).
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg, only=("emb_dim", "ff_dim", "linear_bias"))
        self.gate = nn.Linear(config.emb_dim, config.feed_forward_dim, bias=config.linear_bias)
        self.up = nn.Linear(config.emb_dim, config.feed_forward_dim, bias=config.linear_bias)
        self.down = nn.Linear(config.feed_forward_dim, config.emb_dim, bias=config.linear_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position alike."""
        transformed: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))  # (B, T, E)
        return transformed
