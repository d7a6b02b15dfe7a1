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
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.rotary import rotate


class MultiHeadAttention(nn.Module):
    """Let each token gather what it needs from itself and the tokens before it.

    Every token asks a question (query) and offers a label (key) and a content (value); where a question fits
    a label, the content flows. Several heads ask different questions side by side.

    `implementation="manual"` writes the formula out, "sdpa" calls torch's fused kernel, which never builds
    the (T, T) matrix of weights; both agree to rounding.

    Of the Llama family: with `n_kv_heads` below `num_heads`, groups of queries share one head of keys and
    values, which makes the cache smaller; `qk_norm_eps` puts an RMSNorm on every head's queries and keys.

    Shapes: x (B, T, d_in) -> (B, T, out_dim), which is d_out unless given; inside, d_out is cut into H heads
        of D = d_out / H.
    Raises: ConfigError when the heads do not divide d_out, or n_kv_heads not num_heads; DataError when x is
        longer than context_length.
    Source: Vaswani et al. 2017, section 3.2.2, with GPT-2's causal mask; Ainslie et al. 2023 for the groups.
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
        # Created in the book's order: with its seed, its weights.
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, n_kv_heads * self.head_dim, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, n_kv_heads * self.head_dim, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out if out_dim is None else out_dim, bias=out_bias)
        self.dropout = nn.Dropout(dropout)
        self.query_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, eps=qk_norm_eps)
        self.key_norm = None if qk_norm_eps is None else RMSNorm(self.head_dim, eps=qk_norm_eps)

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        cache: LayerCache | None = None,
        cos_sin: tuple[Tensor, Tensor] | None = None,
        read_at: Tensor | None = None,
    ) -> Tensor:
        """Mix the tokens of each row.

        Shapes: x (B, T, d_in); visible as `visible_keys` makes it, or None for plain causal attention; cache
            with S earlier tokens of the same rows; cos_sin of `rotation` for rotary positions; read_at (B,), the
            one position of each row whose answer is wanted -> (B, T, out_dim), or (B, 1, out_dim) with read_at.
        """
        if read_at is not None:
            return self._read_one(x, read_at, visible, cos_sin)
        queries, keys = self._queries_and_keys(x, cos_sin)  # (B, H, T, D)
        values = self._split_heads(self.W_value(x))  # (B, H, T, D)
        if cache is not None:
            keys, values = cache.append(keys, values)  # (B, H, S+T, D)
        self._check_length(keys.shape[2])
        if self.implementation == "manual":
            weights = self.dropout(self._weights(queries, keys, visible))  # (B, H, T, S+T)
            mixed = weights @ self._for_every_query(values)  # (B, H, T, D)
        else:
            mixed = self._fused(queries, keys, values, visible)  # (B, H, T, D)
        gathered: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, T, out_dim)
        return gathered

    def attention_weights(
        self, x: Tensor, *, visible: Tensor | None = None, cos_sin: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """How much each token looks at each other, per head; every row sums to 1.

        Shapes: x (B, T, d_in) -> (B, H, T, T).
        """
        self._check_length(x.shape[1])
        queries, keys = self._queries_and_keys(x, cos_sin)  # (B, H, T, D)
        return self._weights(queries, keys, visible)

    def _read_one(
        self,
        x: Tensor,
        read_at: Tensor,
        visible: Tensor | None,
        cos_sin: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Only the question at read_at is asked.

        Then keys and values need not be computed for every token: q (W x) is (W^T q) x, so the question goes
        through the key matrix once, and the mixture of tokens through the value matrix once. Turned or
        normalised keys do not allow it, nor do shared ones or corrected matrices; they are computed as usual.

        Shapes: x (B, T, d_in), read_at (B,) -> (B, 1, out_dim).
        """
        self._check_length(x.shape[1])
        may_look = self._visible_from(read_at, x.shape[1], visible)  # (B, 1, 1, T)
        is_plain = type(self.W_key) is nn.Linear and type(self.W_value) is nn.Linear  # not corrected by LoRA
        if not is_plain or cos_sin or self.query_norm or self.n_kv_heads < self.num_heads:
            return self._read_with_keys(x, read_at, may_look, cos_sin)
        d_in = x.shape[-1]
        query = self.W_query(take_positions(x, read_at)).view(len(x), self.num_heads, self.head_dim)
        key_matrix = self.W_key.weight.view(self.num_heads, self.head_dim, d_in)  # (H, D, d_in)
        value_matrix = self.W_value.weight.view(self.num_heads, self.head_dim, d_in)
        questions = (query.transpose(0, 1) @ key_matrix).transpose(0, 1)  # (B, H, d_in)
        scores = questions @ x.mT  # (B, H, T)
        if self.W_key.bias is not None:
            key_bias = self.W_key.bias.view(self.num_heads, self.head_dim)
            scores = scores + (query * key_bias).sum(dim=-1, keepdim=True)
        scores = scores / math.sqrt(self.head_dim)
        weights = scores.masked_fill(~may_look.squeeze(1), -math.inf).softmax(dim=-1)
        weights = self.dropout(weights)
        tokens = (weights @ x).transpose(0, 1)  # (H, B, d_in)
        mixed = (tokens @ value_matrix.mT).transpose(0, 1)  # (B, H, D)
        if self.W_value.bias is not None:
            shares = weights.sum(dim=-1, keepdim=True)  # 1, but for dropout
            mixed = mixed + shares * self.W_value.bias.view(self.num_heads, self.head_dim)
        gathered: Tensor = self.out_proj(mixed.flatten(1)[:, None])  # (B, 1, out_dim)
        return gathered

    def _read_with_keys(
        self,
        x: Tensor,
        read_at: Tensor,
        may_look: Tensor,
        cos_sin: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        queries, keys = self._queries_and_keys(x, cos_sin)  # (B, H, T, D)
        values = self._split_heads(self.W_value(x))
        rows = torch.arange(len(x), device=x.device)
        query = queries[rows, :, read_at][:, :, None]  # (B, H, 1, D)
        if self.implementation == "manual":
            mixed = self.dropout(self._weights(query, keys, may_look)) @ self._for_every_query(values)
        else:
            mixed = self._fused(query, keys, values, may_look)  # (B, H, 1, D)
        gathered: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (B, 1, out_dim)
        return gathered

    def _visible_from(self, read_at: Tensor, n_tokens: int, visible: Tensor | None) -> Tensor:
        """Which tokens the one at read_at may look at: (B, 1, 1, T)."""
        if visible is not None:
            return visible[torch.arange(len(read_at), device=read_at.device), :, read_at][:, :, None]
        places = torch.arange(n_tokens, device=read_at.device)  # (T,)
        may_look = places <= read_at[:, None] if self.is_causal else places >= 0 * read_at[:, None]
        return may_look[:, None, None]

    def _queries_and_keys(self, x: Tensor, cos_sin: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        queries = self._split_heads(self.W_query(x))  # (B, H, T, D)
        keys = self._split_heads(self.W_key(x))  # (B, H, T, D)
        if self.query_norm is not None and self.key_norm is not None:
            queries, keys = self.query_norm(queries), self.key_norm(keys)
        if cos_sin is not None:
            queries, keys = rotate(queries, cos_sin), rotate(keys, cos_sin)
        return queries, keys

    def _split_heads(self, x: Tensor) -> Tensor:
        """As many heads as x is wide: keys and values may have fewer than queries."""
        n_rows, n_tokens, _ = x.shape
        return x.view(n_rows, n_tokens, -1, self.head_dim).transpose(1, 2)  # (B, H, T, D)

    def _for_every_query(self, shared: Tensor) -> Tensor:
        """Keys or values once for each head of queries; the heads of a group are neighbours."""
        n_sharing = self.num_heads // self.n_kv_heads
        return shared if n_sharing == 1 else shared.repeat_interleave(n_sharing, dim=1)  # (B, H, S+T, D)

    def _weights(self, queries: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
        n_new, n_all = queries.shape[2], keys.shape[2]
        if visible is None:
            visible = self._all_visible(n_new, n_all, queries.device)  # (T, S+T)
        keys = self._for_every_query(keys)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(self.head_dim)  # (B, H, T, S+T)
        return scores.masked_fill(~visible, -math.inf).softmax(dim=-1)

    def _fused(self, queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
        n_new, n_all = queries.shape[2], keys.shape[2]
        # is_causal lets the kernel skip the future without a mask, but it aligns the upper left corner: right
        # only when nothing is cached. A single new token is the last one and may see everything.
        if visible is None and 1 < n_new < n_all:
            visible = self._all_visible(n_new, n_all, queries.device)  # (T, S+T)
        return F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=visible,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.is_causal and visible is None and n_new > 1,
            enable_gqa=self.n_kv_heads < self.num_heads,
        )

    def _all_visible(self, n_new: int, n_all: int, device: torch.device) -> Tensor:
        everything = torch.ones(n_new, n_all, dtype=torch.bool, device=device)
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
        # The book saves its causal mask as a buffer. It holds nothing learnt, so it is accepted and dropped.
        state_dict.pop(f"{prefix}mask", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def take_positions(x: Tensor, read_at: Tensor) -> Tensor:
    """One position of each row.

    Shapes: x (B, T, E), read_at (B,) -> (B, 1, E).
    """
    return x[torch.arange(len(x), device=x.device), read_at][:, None]
