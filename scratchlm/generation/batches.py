"""Many prompts continued in batches, for benchmarks and test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel


def texts_in_batches(
    model: GPTModel,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    tokenizer: Tokenizer,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """What the model writes after each prompt, in their order; prompts of similar length are continued together.

    Units: progress(done, total) counts prompts.
    Raises: ConfigError for a batch size below 1; as `generate`.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}; 16 is the default.")
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    texts: dict[int, str] = {}
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        written = generate_ids(model, [prompts[i] for i in rows], config, tokenizer=tokenizer)
        texts |= {i: one.text for i, one in zip(rows, written)}
        if progress is not None:
            progress(len(texts), len(prompts))
    return [texts[i] for i in range(len(prompts))]
