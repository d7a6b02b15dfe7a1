"""Qwen 3 with a cache."""

from scratchlm.book import qwen3
from scratchlm.book.kv_cache.utils import ReadsWithCache
from scratchlm.book.qwen3 import *  # noqa: F403 - the same names, one of them with a cache


class Qwen3Model(ReadsWithCache, qwen3.Qwen3Model):  # type: ignore[misc, no-redef]
    """Qwen 3; calling it accepts a cache."""
