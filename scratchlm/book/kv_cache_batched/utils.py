"""The key-value cache."""

from scratchlm.book.kv_cache.utils import KVCache as KVCache
