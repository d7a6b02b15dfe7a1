"""Causal multi-head attention: how a token gathers what it needs from the tokens before it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model.config import AttentionKind
from scratchlm.model.kv_cache import LayerCache


class MultiHeadAttention(nn.Module):
    """Let each token gather what it needs from itself and the tokens before it.

    Every token asks a question (query) and offers a label (key) and a content (value); where a question fits
    a label, the content flows. Several heads ask different questions side by side.

    `implementation="manual"` writes the formula out, "sdpa" calls torch's fused kernel, which never builds
    the (T, T) matrix of weights; both agree to rounding.

    Shapes: x (B, T, d_in) -> (B, T, d_out); inside, d_out is cut into H heads of D = d_out / H.
    Raises: ConfigError when the heads do not divide d_out; DataError when x is longer than context_length.
    Source: Vaswani et al. 2017, section 3.2.2, with GPT-2's causal mask.
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
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_out % num_heads != 0:
            raise ConfigError(
                f"d_out must split evenly into heads, got d_out={d_out} and num_heads={num_heads}; "
                f"choose num_heads among the divisors of {d_out}."
            )
        if implementation not in ("sdpa", "manual"):
            raise ConfigError(f"implementation must be sdpa or manual, got {implementation!r}; choose one.")
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.context_length = context_length
        self.implementation = implementation
        # Created in the book's order: with its seed, its weights.
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, visible: Tensor | None = None, cache: LayerCache | None = None) -> Tensor:
        """Mix the tokens of each row.

        Shapes: x (B, T, d_in); visible as `visible_keys` makes it, or None for plain causal attention; cache
            with S earlier tokens of the same rows -> (B, T, d_out).
        """
        queries = self._split_heads(self.W_query(x))  # (B, H, T, D)
        keys = self._split_heads(self.W_key(x))  # (B, H, T, D)
        values = self._split_heads(self.W_value(x))  # (B, H, T, D)
        if cache is not None:
            keys, values = cache.append(keys, values)  # (B, H, S+T, D)
        self._check_length(keys.shape[2])
        if self.implementation == "manual":
            mixed = self.dropout(self._weights(queries, keys, visible)) @ values  # (B, H, T, D)
        else:
            mixed = self._fused(queries, keys, values, visible)  # (B, H, T, D)
        gathered: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, d_out)
        return gathered

    def attention_weights(self, x: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """How much each token looks at each other, per head; every row sums to 1.

        Shapes: x (B, T, d_in) -> (B, H, T, T).
        """
        self._check_length(x.shape[1])
        return self._weights(self._split_heads(self.W_query(x)), self._split_heads(self.W_key(x)), visible)

    def _split_heads(self, x: Tensor) -> Tensor:
        n_rows, n_tokens, _ = x.shape
        return x.view(n_rows, n_tokens, self.num_heads, self.head_dim).transpose(1, 2)  # (B, H, T, D)

    def _weights(self, queries: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
        n_new, n_all = queries.shape[2], keys.shape[2]
        if visible is None:
            visible = _causal(n_new, n_all, queries.device)  # (T, S+T)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(self.head_dim)  # (B, H, T, S+T)
        return scores.masked_fill(~visible, -math.inf).softmax(dim=-1)

    def _fused(self, queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
        n_new, n_all = queries.shape[2], keys.shape[2]
        # is_causal lets the kernel skip the future without a mask, but it aligns the upper left corner: right
        # only when nothing is cached. A single new token is the last one and may see everything.
        if visible is None and 1 < n_new < n_all:
            visible = _causal(n_new, n_all, queries.device)  # (T, S+T)
        return F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=visible,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=visible is None and n_new > 1,
        )

    def _check_length(self, n_tokens: int) -> None:
        if n_tokens > self.context_length:
            raise DataError(
                f"attention reads at most {self.context_length} tokens, got {n_tokens}; "
                "crop the input or build the model with a larger context_length."
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The book saves its causal mask as a buffer. It holds nothing learnt, so it is accepted and dropped.
        state_dict.pop(f"{prefix}mask", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def visible_keys(attention_mask: Tensor, n_new: int) -> Tensor:
    """Which tokens each of the last n_new tokens may look at: real ones, not in its future.

    A padding token also sees itself: nobody reads its output, but a softmax over nothing would be NaN.

    Shapes: attention_mask (B, S+T), True at real tokens -> (B, 1, T, S+T), True where the query may look.
    """
    n_all = attention_mask.shape[1]
    causal = _causal(n_new, n_all, attention_mask.device)  # (T, S+T)
    itself = causal & ~_causal(n_new, n_all, attention_mask.device, shift=-1)  # (T, S+T)
    return ((attention_mask[:, None, :] & causal) | itself)[:, None]  # (B, 1, T, S+T)


def _causal(n_new: int, n_all: int, device: torch.device, *, shift: int = 0) -> Tensor:
    """Row t is the token at position n_all - n_new + t; True up to its own position plus shift."""
    return torch.ones(n_new, n_all, dtype=torch.bool, device=device).tril(n_all - n_new + shift)
