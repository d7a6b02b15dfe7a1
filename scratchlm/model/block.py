"""The transformer block: attention, then a feed-forward network, each added to its input."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scratchlm.model.attention import MultiHeadAttention
from scratchlm.model.attention_context import AttentionContext
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.feed_forward import FeedForward
from scratchlm.model.kv_cache import LayerRows
from scratchlm.model.layer_norm import LayerNorm
from scratchlm.model.recompute import recomputed
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.swiglu import SwiGLU


class TransformerBlock(nn.Module):
    """Apply attention and a feed-forward network; a GPT is a stack of these blocks.

    Both sublayers read a normalised copy of the residual stream and add their result to it, so that gradients
    reach the first block undiminished.

    Shapes: x (B, T, E) -> (B, T, E).
    Source: Radford et al. 2019, section 2.3: normalisation moved to the input of each sublayer ("pre-norm").
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
        # keep only the input, and compute the rest again in the backward pass; or norms and activations only
        self.activation_checkpointing, self.recomputes = False, False

    @property
    def drop_resid(self) -> nn.Dropout:
        """The same layer under the name of the book's package."""
        return self.drop_shortcut

    def forward(
        self, x: Tensor, context: AttentionContext | None = None, *, cache: LayerRows | None = None
    ) -> Tensor:
        """Add the output of attention, then that of the feed-forward network.

        Shapes: x (B, T, E) -> (B, T, E).
        """
        if self.activation_checkpointing and torch.is_grad_enabled():
            # Computed again in the backward pass, with the same random numbers.
            added: Tensor = checkpoint(self._run, x, context, use_reentrant=False)
            return added
        return self._run(x, context, cache)

    def set_activation_checkpointing(self, is_on: bool, *, recompute_cheap: bool = False) -> None:
        """As `GPTModel.set_activation_checkpointing`, for one block."""
        self.activation_checkpointing = is_on
        self.recomputes = self.ff.recomputes = recompute_cheap and not is_on

    def _run(self, x: Tensor, context: AttentionContext | None, cache: LayerRows | None = None) -> Tensor:
        start, normed = x, self.norm1(x)
        with recomputed(normed, lambda: self.norm1(start), is_wanted=self.recomputes):
            x = x + self.drop_shortcut(self.att(normed, context, cache=cache))
        middle, normed = x, self.norm2(x)
        with recomputed(normed, lambda: self.norm2(middle), is_wanted=self.recomputes):
            x = x + self.drop_shortcut(self.ff(normed))
        return x


def norm_layer(config: GPTConfig) -> LayerNorm | RMSNorm:
    """Build the normalisation layer that the config names."""
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(config.emb_dim, eps=config.norm_eps, kernels=config.kernels)
