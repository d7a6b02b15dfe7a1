"""Chapter 4's model with a cache."""

from __future__ import annotations

from scratchlm.book import ch04
from scratchlm.book.ch03 import MultiHeadAttention
from scratchlm.book.ch04 import GELU, FeedForward, LayerNorm, TransformerBlock
from scratchlm.book.kv_cache.utils import KVCache, ReadsWithCache

__all__ = [
    "GELU",
    "FeedForward",
    "GPTModel",
    "KVCache",
    "LayerNorm",
    "MultiHeadAttention",
    "TransformerBlock",
]


class GPTModel(ReadsWithCache, ch04.GPTModel):  # type: ignore[misc]
    """Chapter 4's GPT; calling it accepts a cache."""
