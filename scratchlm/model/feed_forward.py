"""The feed-forward network of a block: it transforms each token's vector without looking at the others."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.gelu import GELU
from scratchlm.model.linear import build_linear
from scratchlm.model.recompute import recomputed


class FeedForward(nn.Module):
    """Widen each token's vector, apply GELU, and project it back.

    Shapes: x (B, T, E) -> (B, T, E); inside (B, T, F), where F is 4 E unless the config says otherwise.
    Source: Vaswani et al. 2017, section 3.3, with GPT-2's GELU in place of ReLU.
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg, only=("emb_dim", "ff_dim", "linear_bias", "feed_forward", "kernels"))
        self.layers = nn.Sequential(
            build_linear(config.emb_dim, config.feed_forward_dim, bias=config.linear_bias),  # (B, T, F)
            GELU(kernels=config.kernels, exact=config.feed_forward == "gelu_exact"),
            build_linear(config.feed_forward_dim, config.emb_dim, bias=config.linear_bias),  # (B, T, E)
        )
        self.recomputes = False  # compute GELU again in the backward pass, instead of keeping it

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position in the same way."""
        if not self.recomputes:
            plain: Tensor = self.layers(x)
            return plain
        widen, activate, project = self.layers
        wide = widen(x)  # (B, T, F)
        active = activate(wide)  # (B, T, F)
        with recomputed(active, lambda: activate(wide)):
            output: Tensor = project(active)
        return output
