"""The key-value cache."""

from __future__ import annotations

from scratchlm.book.kv_cache.utils import KVCache

__all__ = ["KVCache"]
