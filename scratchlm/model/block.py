"""The transformer block: attention, then thought, each added to what was there before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scratchlm.model.attention import MultiHeadAttention
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.feed_forward import FeedForward
from scratchlm.model.kv_cache import LayerCache
from scratchlm.model.layer_norm import LayerNorm


class TransformerBlock(nn.Module):
    """One round of gathering (attention) and digesting (feed-forward); a GPT is a stack of these.

    Both halves read a normalised copy and add their result to the stream, so that a gradient reaches the
    first block undiminished.

    Shapes: x (B, T, E) -> (B, T, E).
    Source: Radford et al. 2019, section 2.3: normalisation moved to the input of each half ("pre-norm").
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg)
        self.att = MultiHeadAttention(
            d_in=config.emb_dim,
            d_out=config.emb_dim,
            context_length=config.context_length,
            dropout=config.drop_rate,
            num_heads=config.n_heads,
            qkv_bias=config.qkv_bias,
            implementation=config.attention,
        )
        self.ff = FeedForward(config)
        self.norm1 = LayerNorm(config.emb_dim, kernels=config.kernels)
        self.norm2 = LayerNorm(config.emb_dim, kernels=config.kernels)
        self.drop_shortcut = nn.Dropout(config.drop_rate)

    @property
    def drop_resid(self) -> nn.Dropout:
        """The name that the book's package gives to `drop_shortcut`."""
        return self.drop_shortcut

    def forward(self, x: Tensor, *, visible: Tensor | None = None, cache: LayerCache | None = None) -> Tensor:
        """Gather, add, digest, add; `visible` and `cache` are attention's."""
        x = x + self.drop_shortcut(self.att(self.norm1(x), visible=visible, cache=cache))
        x = x + self.drop_shortcut(self.ff(self.norm2(x)))
        return x
