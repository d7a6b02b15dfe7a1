"""Llama 3 with a cache."""

from __future__ import annotations

from scratchlm.book import llama3
from scratchlm.book.kv_cache.utils import KVCache, ReadsWithCache
from scratchlm.book.llama3 import (
    LLAMA32_CONFIG_1B,
    LLAMA32_CONFIG_3B,
    ChatFormat,
    FeedForward,
    Llama3Tokenizer,
    apply_rope,
    clean_text,
    compute_rope_params,
)

__all__ = [
    "LLAMA32_CONFIG_1B",
    "LLAMA32_CONFIG_3B",
    "ChatFormat",
    "FeedForward",
    "KVCache",
    "Llama3Model",
    "Llama3ModelFast",
    "Llama3Tokenizer",
    "apply_rope",
    "clean_text",
    "compute_rope_params",
]


class Llama3Model(ReadsWithCache, llama3.Llama3Model):  # type: ignore[misc]
    """Llama 3; calling it accepts a cache."""


Llama3ModelFast = Llama3Model
