"""The GPT model, one layer per file.

Start with `from scratchlm.model import GPTConfig, GPTModel`. Names are imported when first used, so that reading
a `GPTConfig` from a recipe does not import torch.
"""

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
