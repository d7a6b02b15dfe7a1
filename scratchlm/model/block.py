"""The transformer block: attention, then thought, each added to what was there before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scratchlm.model.attention import MultiHeadAttention, take_positions
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.feed_forward import FeedForward
from scratchlm.model.kv_cache import LayerCache
from scratchlm.model.layer_norm import LayerNorm
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.swiglu import SwiGLU


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
            d_out=config.n_heads * config.head_dim,
            context_length=config.context_length,
            dropout=config.drop_rate_of("drop_rate_attn"),
            num_heads=config.n_heads,
            qkv_bias=config.qkv_bias,
            implementation=config.attention,
            n_kv_heads=config.n_kv_heads,
            out_dim=config.emb_dim,
            out_bias=config.linear_bias,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
            is_causal=config.is_causal,
        )
        self.ff = SwiGLU(config) if config.feed_forward == "swiglu" else FeedForward(config)
        self.norm1 = norm_layer(config)
        self.norm2 = norm_layer(config)
        self.drop_shortcut = nn.Dropout(config.drop_rate_of("drop_rate_shortcut"))

    @property
    def drop_resid(self) -> nn.Dropout:
        """The name that the book's package gives to `drop_shortcut`."""
        return self.drop_shortcut

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        cache: LayerCache | None = None,
        cos_sin: tuple[Tensor, Tensor] | None = None,
        read_at: Tensor | None = None,
    ) -> Tensor:
        """Gather, add, digest, add; the keyword arguments are attention's.

        Shapes: x (B, T, E) -> (B, T, E), or (B, 1, E) when read_at names one position of each row.
        """
        gathered = self.att(self.norm1(x), visible=visible, cache=cache, cos_sin=cos_sin, read_at=read_at)
        x = x if read_at is None else take_positions(x, read_at)
        x = x + self.drop_shortcut(gathered)
        x = x + self.drop_shortcut(self.ff(self.norm2(x)))
        return x


def norm_layer(config: GPTConfig) -> LayerNorm | RMSNorm:
    """The normalisation that the config names."""
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(config.emb_dim, eps=config.norm_eps, kernels=config.kernels)
