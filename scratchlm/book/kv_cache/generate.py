"""Generate with a cache, all at once or one token at a time."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from scratchlm.book.ch04 import generate_text_simple_cached as generate_text_simple
from scratchlm.book.generate import trim_input_tensor
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate
from scratchlm.model.gpt import GPTModel

__all__ = ["generate_text_simple", "generate_text_simple_stream", "trim_input_tensor"]


def generate_text_simple_stream(
    model: GPTModel,
    token_ids: Tensor,
    max_new_tokens: int,
    eos_token_id: int | None = None,
    context_size: int | None = None,  # noqa: ARG001
) -> Iterator[Tensor]:
    """Yield the most likely next token of every row; stop when all rows choose eos_token_id.

    Shapes: token_ids (B, T) -> (B, 1) each.
    """
    events = generate(model, token_ids.tolist(), GenerationConfig(max_new_tokens=max_new_tokens))
    while group := list(itertools.islice(events, len(token_ids))):
        ids = [event.id for event in group]
        if all(id_ == eos_token_id for id_ in ids):
            return
        yield torch.tensor(ids, dtype=token_ids.dtype, device=token_ids.device)[:, None]
