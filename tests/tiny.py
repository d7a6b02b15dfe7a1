"""A model that is made in a millisecond, and the settings of Llama's layers."""

from typing import Any

from scratchlm.model import GPTConfig, GPTModel

LLAMA_LAYERS = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False}


def tiny_gpt(vocab_size: int, *, context_length: int, **changes: Any) -> GPTModel:
    """A GPT of one block of 16 numbers a token, unless `changes` say otherwise."""
    settings = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, **changes}
    return GPTModel(GPTConfig(vocab_size=vocab_size, context_length=context_length, **settings))
