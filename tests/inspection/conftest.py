"""Models of every architecture that can be inspected, with weights in which no term is zero."""

import pytest
import torch

from scratchlm.model import GPTConfig, GPTModel
from tests.tiny import LLAMA_LAYERS

SMALL = {
    "vocab_size": 300,
    "context_length": 32,
    "emb_dim": 16,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
}
LLAMA = {**LLAMA_LAYERS, "n_kv_heads": 2, "ff_dim": 24}
VARIANTS = {
    "gpt2": GPTConfig(**SMALL, qkv_bias=True, tie_embeddings=True, init="gpt2"),
    "gpt2-untied-manual": GPTConfig(**SMALL, attention="manual", kernels="manual"),
    "llama": GPTConfig(**SMALL, **LLAMA, tie_embeddings=True, init="gpt2"),
    "llama-untied": GPTConfig(**SMALL, **LLAMA),
    "qwen3": GPTConfig(**SMALL, **LLAMA, head_size=6, qk_norm=True),
    "rotary-layer-norm": GPTConfig(**SMALL, positions="rotary", feed_forward="gelu_exact"),
}


def varied(config: GPTConfig) -> GPTModel:
    """A model with random biases, scales and shifts too, which initialisation leaves at 0 and 1."""
    torch.manual_seed(1)
    model = GPTModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(params=VARIANTS)
def any_model(request) -> GPTModel:
    return varied(VARIANTS[request.param])
