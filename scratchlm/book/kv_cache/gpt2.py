"""Chapter 4's model with a cache."""

from scratchlm.book import ch04
from scratchlm.book.ch03 import MultiHeadAttention as MultiHeadAttention
from scratchlm.book.ch04 import *  # noqa: F403 - the same names, one of them with a cache
from scratchlm.book.kv_cache.utils import KVCache as KVCache
from scratchlm.book.kv_cache.utils import ReadsWithCache


class GPTModel(ReadsWithCache, ch04.GPTModel):  # type: ignore[misc, no-redef]
    """Chapter 4's GPT; calling it accepts a cache."""


GPTModelFast = GPTModel
