"""The feed-forward layer: what each token does with what attention gathered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.gelu import GELU

WIDENING = 4  # GPT-2: the hidden layer is four times as wide as the residual stream


class FeedForward(nn.Module):
    """Think about each token by itself: widen, bend, narrow again.

    Shapes: x (B, T, E) -> (B, T, E); inside (B, T, F) with F = 4 E.
    Source: Vaswani et al. 2017, section 3.3, with GPT-2's GELU in place of ReLU.
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg)
        self.layers = nn.Sequential(
            nn.Linear(config.emb_dim, WIDENING * config.emb_dim),  # (B, T, F)
            GELU(kernels=config.kernels),
            nn.Linear(WIDENING * config.emb_dim, config.emb_dim),  # (B, T, E)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position alike."""
        transformed: Tensor = self.layers(x)
        return transformed
