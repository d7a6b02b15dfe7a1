"""Qwen 3 with a cache."""

from scratchlm.book.kv_cache.qwen3 import *  # noqa: F403
