"""Qwen 3 with a cache."""

from __future__ import annotations

from scratchlm.book import qwen3
from scratchlm.book.kv_cache.utils import KVCache, ReadsWithCache
from scratchlm.book.qwen3 import FeedForward, MoEFeedForward, RMSNorm, apply_rope, compute_rope_params

__all__ = [
    "FeedForward",
    "KVCache",
    "MoEFeedForward",
    "Qwen3Model",
    "RMSNorm",
    "apply_rope",
    "compute_rope_params",
]


class Qwen3Model(ReadsWithCache, qwen3.Qwen3Model):  # type: ignore[misc]
    """Qwen 3; calling it accepts a cache."""
