"""Causal multi-head attention: each token gathers information from itself and the tokens before it."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model.attention_context import AttentionContext
from scratchlm.model.config import AttentionKind
from scratchlm.model.kv_cache import LayerRows
from scratchlm.model.linear import build_linear
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.rotary import rotate


class MultiHeadAttention(nn.Module):
    """Let each token gather what it needs from itself and the tokens before it.

    Each token makes a query (what it looks for), a key (what it can be found by) and a value (what it passes on).
    Its output is the average of the values, weighted by how well its query matches their keys. Several heads do
    this in parallel, each with its own projections.

    `implementation="manual"` writes the formula out; "sdpa" calls torch's fused kernel, which never stores the
    (T, T) matrix of weights. They agree up to rounding.

    For the Llama family: with `n_kv_heads` below `num_heads`, several heads share keys and values, which makes
    the cache smaller; `qk_norm_eps` normalises the queries and keys of each head.

    Shapes: x (B, T, d_in) -> (B, T, out_dim), where out_dim defaults to d_out; inside, d_out is split into H heads
        of D = d_out / H.
    Raises: ConfigError when num_heads does not divide d_out or n_kv_heads does not divide num_heads; DataError when
        x is longer than context_length.
    Source: Vaswani et al. 2017, section 3.2.2, with GPT-2's causal mask; Ainslie et al. 2023 for shared keys.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        implementation: AttentionKind = "sdpa",
        n_kv_heads: int | None = None,
        out_dim: int | None = None,
        out_bias: bool = True,
        qk_norm_eps: float | None = None,
        is_causal: bool = True,
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_out % num_heads != 0:
            raise ConfigError(
                f"d_out must split evenly into heads, got d_out={d_out} and num_heads={num_heads}; "
                f"choose num_heads among the divisors of {d_out}."
            )
        n_kv_heads = num_heads if n_kv_heads is None else n_kv_heads
        if n_kv_heads < 1 or num_heads % n_kv_heads != 0:
            raise ConfigError(
                f"num_heads must split evenly into groups, got num_heads={num_heads} and "
                f"n_kv_heads={n_kv_heads}; choose n_kv_heads among the divisors of {num_heads}."
            )
        if implementation not in ("sdpa", "manual"):
            raise ConfigError(f"implementation must be sdpa or manual, got {implementation!r}; choose one.")
        self.d_out = d_out
        self.num_heads = num_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = d_out // num_heads
        self.context_length = context_length
        self.implementation = implementation
        self.is_causal = is_causal
        # Created in the book's order, so that the same seed gives the book's weights.
        self.W_query = build_linear(d_in, d_out, bias=qkv_bias)
        self.W_key = build_linear(d_in, n_kv_heads * self.head_dim, bias=qkv_bias)
        self.W_value = build_linear(d_in, n_kv_heads * self.head_dim, bias=qkv_bias)
        self.out_proj = build_linear(d_out, d_out if out_dim is None else out_dim, bias=out_bias)
        self.dropout = nn.Dropout(dropout)
        self.query_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, eps=qk_norm_eps)
        self.key_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, eps=qk_norm_eps)

    def forward(
        self, x: Tensor, context: AttentionContext | None = None, *, cache: LayerRows | None = None
    ) -> Tensor:
        """Mix the tokens of each row.

        Shapes: x (B, T, d_in); cache with S earlier tokens of the same rows -> (B, T, out_dim).
        """
        context = context or AttentionContext()
        queries, keys, values = self.project(x, context)  # (B, H, T, D)
        if cache is not None:
            keys, values = cache.append(keys, values)  # (B, H, S+T, D)
        is_fused = self.implementation == "sdpa"
        mask = context.additive_mask(queries.dtype) if is_fused else context.mask
        mixed = self.attend(queries, keys, values, mask)  # (B, H, T, D)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, out_dim)
        return output

    def project(self, x: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """Compute queries, keys and values; rotary positions are applied to the first two.

        Shapes: x (B, T, d_in) -> (B, H, T, D) each; keys and values have n_kv_heads heads.
        """
        queries, keys, values = (
            layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, H, T, D)
            for layer in (self.W_query, self.W_key, self.W_value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if context.cos_sin is not None:
            queries, keys = rotate(queries, context.cos_sin), rotate(keys, context.cos_sin)
        return queries, keys, values

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Average the values, weighted by how well each query matches their keys.

        The mask is boolean, or for "sdpa" also additive.
        Shapes: queries (B, H, T, D), keys and values (B, H, S+T, D), mask (B, 1, T, S+T) -> (B, H, T, D).
        """
        if self.implementation == "manual":
            weights: Tensor = self.dropout(self._weights(queries, keys, mask))  # (B, H, T, S+T)
            return weights @ self._repeat_for_groups(values)  # (B, H, T, D)
        n_new, n_all = queries.shape[2], keys.shape[2]
        self._check_length(n_all)
        # is_causal lets the kernel skip later keys without a mask, but it aligns the mask at the upper left corner,
        # which is correct only without cached tokens. A single new token is the last and may attend to all keys.
        if mask is None and 1 < n_new < n_all:
            mask = self._mask_of_last(n_new, n_all, queries.device)  # (T, S+T)
        return F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.is_causal and mask is None and n_new > 1,
            enable_gqa=self.n_kv_heads < self.num_heads,
        )

    def attention_weights(self, x: Tensor, context: AttentionContext | None = None) -> Tensor:
        """Compute how much each token attends to each other, per head; every row sums to 1.

        Shapes: x (B, T, d_in) -> (B, H, T, T).
        """
        context = context or AttentionContext()
        queries, keys, _ = self.project(x, context)
        return self._weights(queries, keys, context.mask)

    def _weights(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        n_new, n_all = queries.shape[2], keys.shape[2]
        self._check_length(n_all)
        if mask is None:
            mask = self._mask_of_last(n_new, n_all, queries.device)  # (T, S+T)
        keys = self._repeat_for_groups(keys)  # (B, H, S+T, D)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(self.head_dim)  # (B, H, T, S+T)
        return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)

    def _repeat_for_groups(self, shared: Tensor) -> Tensor:
        """Repeat keys or values for each query head of a group; the heads of a group are neighbours."""
        n_sharing = self.num_heads // self.n_kv_heads
        return shared if n_sharing == 1 else shared.repeat_interleave(n_sharing, dim=1)  # (B, H, S+T, D)

    def _mask_of_last(self, n_new: int, n_all: int, device: torch.device) -> Tensor:
        everything = torch.ones(n_new, n_all, dtype=torch.bool, device=device)  # (T, S+T)
        return everything.tril(n_all - n_new) if self.is_causal else everything

    def _check_length(self, n_tokens: int) -> None:
        if n_tokens > self.context_length:
            raise DataError(
                f"attention reads at most {self.context_length} tokens, got {n_tokens}; "
                "crop the input or build the model with a larger context_length."
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict.pop(f"{prefix}mask", None)  # the book saves its causal mask, which is not trained
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
