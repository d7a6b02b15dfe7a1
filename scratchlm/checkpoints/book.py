"""Convert a model's weights to the names and buffers of the book's own classes."""

import re

import torch
from torch import Tensor

from scratchlm.checkpoints.gguf.weights import architecture
from scratchlm.checkpoints.names import BOOK_LLAMA, to_theirs
from scratchlm.core.errors import ConfigError
from scratchlm.model.config import WIDENING
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import dense_model

EPS, QWEN_EPS = 1e-5, 1e-6  # fixed in the book's classes
_NORM = re.compile(r"(final_norm|norm[12])\.weight")  # Llama's norms have a weight, Qwen's a scale


def book_state_dict(model: GPTModel) -> dict[str, Tensor]:
    """A state dict that the book's class for this kind of model loads with `strict=True`.

    The class is chapter 4's `GPTModel` for a GPT-2 (its masks are included), `Llama3Model` for a Llama, and
    `Qwen3Model` for a model with Qwen 3's qk_norm or its norm_eps of 1e-6.

    Raises: ConfigError for a model that the book's class cannot represent.
    """
    config, model = model.config, dense_model(model)
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if architecture(config) == "gpt2":
        _check(model, "GPTModel", norm_eps=EPS, feed_forward_dim=WIDENING * config.emb_dim)
        n = config.context_length
        mask = torch.triu(torch.ones(n, n), diagonal=1)  # 1 where the key is a later position
        return state | {f"trf_blocks.{i}.att.mask": mask for i in range(config.n_layers)}
    if config.qk_norm or config.norm_eps == QWEN_EPS:
        _check(model, "Qwen3Model", norm_eps=QWEN_EPS, qkv_bias=False, rope_scaling=None)
        theirs = to_theirs(BOOK_LLAMA, state, config.n_layers)
        return {_NORM.sub(r"\1.scale", name): tensor for name, tensor in theirs.items()}
    width = config.emb_dim // config.n_heads
    _check(model, "Llama3Model", norm_eps=EPS, qkv_bias=False, head_dim=width)
    return to_theirs(BOOK_LLAMA, state, config.n_layers)


def _check(model: GPTModel, name: str, **wanted: object) -> None:
    for field, value in wanted.items():
        found = getattr(model.config, field)
        if found != value:
            raise ConfigError(
                f"the book's {name} has {field}={value}, got a model with {found}; convert it to another format."
            )
