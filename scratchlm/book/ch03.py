"""Chapter 3, attention: the simpler versions that lead to `MultiHeadAttention`.

Each version adds one idea: learned queries, keys and values; Linear layers; the causal mask and dropout; several
heads. The last one is the attention of the package's GPT; the earlier ones are here to be read.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model.attention import MultiHeadAttention

__all__ = [
    "CausalAttention",
    "MultiHeadAttention",
    "MultiHeadAttentionWrapper",
    "PyTorchMultiHeadAttention",
    "SelfAttention_v1",
    "SelfAttention_v2",
]


def _mix(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention without a mask.

    Shapes: (..., T, D) each -> (..., T, D).
    """
    scores = queries @ keys.mT / math.sqrt(keys.shape[-1])  # (..., T, T)
    return scores.softmax(dim=-1) @ values  # (..., T, D)


class SelfAttention_v1(nn.Module):  # noqa: N801 - the book's name
    """Attention from every token to all tokens, with three plain weight matrices; a batch works too.

    Shapes: x (..., T, d_in) -> (..., T, d_out).
    """

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention for every token."""
        return _mix(x @ self.W_query, x @ self.W_key, x @ self.W_value)


class SelfAttention_v2(nn.Module):  # noqa: N801 - the book's name
    """SelfAttention_v1 with Linear layers, whose initial weights are better scaled.

    Shapes: x (..., T, d_in) -> (..., T, d_out).
    """

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False) -> None:
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention for every token."""
        return _mix(self.W_query(x), self.W_key(x), self.W_value(x))


class CausalAttention(nn.Module):
    """One causal head on batches, with dropout on its attention weights.

    Shapes: x (B, T, d_in) -> (B, T, d_out).
    Raises: DataError when x is longer than context_length.
    """

    mask: Tensor

    def __init__(
        self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        self.d_out = d_out
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mask", torch.ones(context_length, context_length).triu(diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute causal attention for every token."""
        n_tokens = x.shape[1]
        if n_tokens > self.mask.shape[0]:
            raise DataError(
                f"attention reads at most {self.mask.shape[0]} tokens, got {n_tokens}; crop the input."
            )
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)  # (B, T, d_out)
        scores = queries @ keys.transpose(1, 2) / math.sqrt(self.d_out)  # (B, T, T)
        scores = scores.masked_fill(self.mask[:n_tokens, :n_tokens].bool(), -math.inf)
        weights: Tensor = self.dropout(scores.softmax(dim=-1))
        mixed: Tensor = weights @ values  # (B, T, d_out)
        return mixed


class MultiHeadAttentionWrapper(nn.Module):
    """Several causal heads side by side, each with its own matrices; `d_out` is the width of one head.

    Shapes: x (B, T, d_in) -> (B, T, num_heads * d_out).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the outputs of the heads."""
        return torch.cat([head(x) for head in self.heads], dim=-1)


class PyTorchMultiHeadAttention(nn.Module):
    """The bonus variant: queries, keys and values from one matrix, and torch's fused attention.

    MultiHeadAttention calls the same kernel; this class has the book's parameter names.

    Shapes: x (B, T, d_in) -> (B, T, d_out).
    Raises: ConfigError when the heads do not divide d_out.
    """

    def __init__(
        self, d_in: int, d_out: int, num_heads: int, dropout: float = 0.0, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        if num_heads < 1 or d_out % num_heads != 0:
            raise ConfigError(
                f"d_out must split evenly into heads, got d_out={d_out} and num_heads={num_heads}; "
                f"choose num_heads among the divisors of {d_out}."
            )
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.d_out = d_out
        self.qkv = nn.Linear(d_in, 3 * d_out, bias=qkv_bias)
        self.proj = nn.Linear(d_out, d_out)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Compute causal attention for every token."""
        parts = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim))  # (B, T, 3, H, D)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )
        gathered: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # (B, T, d_out)
        return gathered
