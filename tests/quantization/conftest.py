import pytest
import torch

from scratchlm.model import GPTConfig, GPTModel


@pytest.fixture(params=["gpt2", "llama"])
def wide_model(request) -> GPTModel:
    """A model whose rows hold groups of 32 and 64 weights: GPT-2 with untied, or Llama with tied embeddings."""
    shared = {
        "vocab_size": 300,
        "context_length": 16,
        "emb_dim": 64,
        "n_heads": 4,
        "n_layers": 2,
        "drop_rate": 0.0,
    }
    llama = {
        "norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "ff_dim": 128, "n_kv_heads": 2,
        "linear_bias": False, "tie_embeddings": True, "init": "gpt2",
    }  # fmt: skip
    torch.manual_seed(0)
    return GPTModel(GPTConfig(**shared, **(llama if request.param == "llama" else {"qkv_bias": True}))).eval()


@pytest.fixture
def ids(generator) -> torch.Tensor:
    return torch.randint(0, 300, (3, 16), generator=generator)
