"""Chapter 4, the GPT model: its parts, the dummy model that shows its structure, and greedy generation.

The parts are the package's classes. They use torch's fused kernels, equal to the book's formulas up to rounding, and
are created in the book's order, so that a seed gives the book's weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.book import book_state_dict
from scratchlm.core.config import to_dict
from scratchlm.core.errors import ConfigError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.samplers import check_scores
from scratchlm.model import gpt
from scratchlm.model.block import TransformerBlock
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.feed_forward import FeedForward
from scratchlm.model.gelu import GELU
from scratchlm.model.layer_norm import LayerNorm

__all__ = [
    "GELU",
    "DummyGPTModel",
    "DummyLayerNorm",
    "DummyTransformerBlock",
    "FeedForward",
    "FeedForwardFast",
    "GPTModel",
    "GPTModelFast",
    "LayerNorm",
    "TransformerBlock",
    "TransformerBlockFast",
    "book_state_dict",
    "generate_text_simple",
    "generate_text_simple_cached",
]


class DummyTransformerBlock(nn.Module):
    """A placeholder for a transformer block; it returns its input."""

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x


class DummyLayerNorm(nn.Module):
    """A placeholder for layer normalization; it returns its input."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        return x


class DummyGPTModel(nn.Module):
    """The structure of a GPT with placeholders between embeddings and head.

    Shapes: in_idx (B, T) -> logits (B, T, V).
    """

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__()
        config = as_config(cfg)
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate)
        self.trf_blocks = nn.Sequential(*(DummyTransformerBlock(config) for _ in range(config.n_layers)))
        self.final_norm = DummyLayerNorm(config.emb_dim)
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)

    def forward(self, in_idx: Tensor) -> Tensor:
        """Compute the logits of every next token from each token and its position alone."""
        positions = torch.arange(in_idx.shape[1], device=in_idx.device)  # (T,)
        x = self.drop_emb(self.tok_emb(in_idx) + self.pos_emb(positions))  # (B, T, E)
        logits: Tensor = self.out_head(self.final_norm(self.trf_blocks(x)))
        return logits


class GPTModel(gpt.GPTModel):
    """The package's GPT with the book's interface: `model(in_idx=ids)`, and its settings as the dictionary `cfg`."""

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__(cfg)
        self.cfg: Mapping[str, Any] = cfg if isinstance(cfg, Mapping) else to_dict(cfg)

    def forward(self, in_idx: Tensor, **others: Any) -> Tensor:  # type: ignore[override]
        """Compute the logits of the next token at every position; other arguments are those of `model.gpt.GPTModel`.

        Shapes: in_idx (B, T) -> logits (B, T, V).
        """
        return super().forward(in_idx, **others)


# The book's package has fast variants of these; ours already use torch's kernels.
FeedForwardFast, TransformerBlockFast, GPTModelFast = FeedForward, TransformerBlock, GPTModel


def generate_text_simple(model: nn.Module, idx: Tensor, max_new_tokens: int, context_size: int) -> Tensor:
    """Append the most likely token repeatedly, each time from the last `context_size` ids.

    Works with any model from ids to logits, in its current mode, including dropout, as in the book.
    `scratchlm.generation` is faster and switches dropout off.

    Shapes: idx (B, T) -> (B, T + max_new_tokens).
    """
    for _ in range(max_new_tokens):
        chosen = next_logits(model, idx, context_size).argmax(dim=-1)  # (B,)
        idx = torch.cat([idx, chosen[:, None]], dim=1)
    return idx


def generate_text_simple_cached(
    model: gpt.GPTModel,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Generate the same ids with a key-value cache, without dropout; the model's mode is restored.

    A `context_size` below the model's own drops an old token at each step, so that nothing can be cached: then every
    step recomputes all tokens. Beyond the model's context, where the book's function fails, generation continues with
    the last tokens.

    Shapes: idx (B, T) -> (B, T + max_new_tokens).
    """
    longest = idx.shape[1] + max_new_tokens
    if context_size is not None and context_size < min(longest, model.config.context_length):
        was_training = model.training
        try:
            return generate_text_simple(model.eval(), idx, max_new_tokens, context_size)
        finally:
            model.train(was_training)
    config = GenerationConfig(max_new_tokens=max_new_tokens, use_cache=use_cache)
    results = generate_ids(model, idx.tolist(), config)
    new = torch.tensor([result.ids for result in results], dtype=idx.dtype, device=idx.device)
    return torch.cat([idx, new], dim=1)


def next_logits(model: nn.Module, idx: Tensor, context_size: int) -> Tensor:
    """The model's logits for the token after the last `context_size` ids.

    Shapes: idx (B, T) -> (B, V).
    Raises: ConfigError for a context_size below 1; DataError for logits that are not finite.
    """
    if context_size < 1:
        raise ConfigError(
            f"context_size must be at least 1, got {context_size}; the config's context_length is usual."
        )
    with torch.no_grad():
        logits: Tensor = model(idx[:, -context_size:])[:, -1]
    check_scores(logits)
    return logits
