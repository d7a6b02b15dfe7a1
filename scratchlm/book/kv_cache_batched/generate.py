"""Generate with a cache."""

from scratchlm.book.kv_cache.generate import *  # noqa: F403
