"""Token ids to logits to loss: each layer of a GPT on a page of its own.

`from scratchlm.model import GPTConfig, GPTModel` is the plain way in. The names are fetched when first
used, so that reading a `GPTConfig` from a recipe does not pay for importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scratchlm.model.attention import MultiHeadAttention
    from scratchlm.model.block import TransformerBlock
    from scratchlm.model.config import CONFIGS, GPTConfig, named_config
    from scratchlm.model.feed_forward import FeedForward
    from scratchlm.model.gelu import GELU
    from scratchlm.model.gpt import GPTModel
    from scratchlm.model.kv_cache import KVCache
    from scratchlm.model.layer_norm import LayerNorm
    from scratchlm.model.loss import cross_entropy_sum
    from scratchlm.model.modes import evaluation_mode

__all__ = [
    "CONFIGS",
    "GELU",
    "FeedForward",
    "GPTConfig",
    "GPTModel",
    "KVCache",
    "LayerNorm",
    "MultiHeadAttention",
    "TransformerBlock",
    "cross_entropy_sum",
    "evaluation_mode",
    "named_config",
]

_HOME = {
    "CONFIGS": "config",
    "FeedForward": "feed_forward",
    "GELU": "gelu",
    "GPTConfig": "config",
    "GPTModel": "gpt",
    "KVCache": "kv_cache",
    "LayerNorm": "layer_norm",
    "MultiHeadAttention": "attention",
    "TransformerBlock": "block",
    "cross_entropy_sum": "loss",
    "evaluation_mode": "modes",
    "named_config": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
