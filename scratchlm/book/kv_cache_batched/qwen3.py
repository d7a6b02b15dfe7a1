"""Qwen 3 with a cache."""

from __future__ import annotations

from scratchlm.book.kv_cache.qwen3 import (
    FeedForward,
    KVCache,
    Qwen3Model,
    RMSNorm,
    apply_rope,
    compute_rope_params,
)
from scratchlm.book.qwen3 import Qwen3Tokenizer, load_weights_into_qwen

__all__ = [
    "FeedForward",
    "KVCache",
    "Qwen3Model",
    "Qwen3Tokenizer",
    "RMSNorm",
    "apply_rope",
    "compute_rope_params",
    "load_weights_into_qwen",
]
