"""Small random models of each family, created and saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

VOCAB_SIZE = 300
LLAMA = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
GPT2 = {
    "vocab_size": VOCAB_SIZE,
    "n_positions": 128,
    "n_embd": 48,
    "n_head": 6,
    "n_layer": 3,
    "initializer_range": 0.3,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", {**GPT2, "tie_word_embeddings": False}),
    "gpt2 exact gelu, narrow": ("GPT2", {**GPT2, "activation_function": "gelu", "n_inner": 70}),
    "llama 2": ("Llama", LLAMA),
    "llama 3": ("Llama", {**LLAMA, "rope_parameters": LLAMA3_ROPE}),
    "smollm 2": ("Llama", {**LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 3}),
    "llama with biases": ("Llama", {**LLAMA, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {**LLAMA, "sliding_window": None}),
    "qwen 2": ("Qwen2", {**LLAMA, "tie_word_embeddings": True}),
    "qwen 3": ("Qwen3", {**LLAMA, "head_dim": 16, "tie_word_embeddings": True}),
}


def random_model(family: str, *, seed: int = 0, **changes: Any) -> Any:
    """A transformers model with random weights, biases and norms, so that swapped tensors are detected.

    changes: settings of transformers' config, other than the family's.
    """
    kind, settings = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**{**settings, **changes})
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{kind}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def save(model: Any, folder: Path, tokenizer: Any, **settings: Any) -> Path:
    """Save the model with transformers, and the tokenizer beside it."""
    model.save_pretrained(folder, **settings)
    tokenizer.save(folder / "tokenizer.json")
    return folder


def greedy(model: Any, ids: list[int], n_tokens: int) -> list[int]:
    """The greedy continuation by transformers' own generate."""
    model.generation_config.eos_token_id = None  # some configs name one, which would not be chosen or end it
    with torch.no_grad():
        new = model.generate(
            torch.tensor([ids]),
            max_new_tokens=n_tokens,
            min_new_tokens=n_tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return [int(id_) for id_ in new[0, len(ids) :]]
