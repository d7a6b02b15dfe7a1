"""Llama 3 with a cache."""

from scratchlm.book import llama3
from scratchlm.book.kv_cache.utils import ReadsWithCache
from scratchlm.book.llama3 import *  # noqa: F403 - the same names, one of them with a cache


class Llama3Model(ReadsWithCache, llama3.Llama3Model):  # type: ignore[misc, no-redef]
    """Llama 3; calling it accepts a cache."""


Llama3ModelFast = Llama3Model
