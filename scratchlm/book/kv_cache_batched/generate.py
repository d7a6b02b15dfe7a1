"""Generate with a cache."""

from __future__ import annotations

from scratchlm.book.kv_cache.generate import generate_text_simple, trim_input_tensor

__all__ = ["generate_text_simple", "trim_input_tensor"]
