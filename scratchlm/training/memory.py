"""When memory runs out: say so in words that help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from scratchlm.core.errors import OutOfMemoryError
from scratchlm.training.config import TrainingConfig


@contextlib.contextmanager
def memory_errors_explained(config: TrainingConfig) -> Iterator[None]:
    """Turn torch's several ways of saying "no memory left" into OutOfMemoryError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as cause:
        is_memory = isinstance(cause, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(
            cause
        )
        if not is_memory:
            raise
        raise OutOfMemoryError(
            f"a step should fit in memory, found none left at batch_size={config.batch_size}; halve batch_size and "
            "double accumulate (the result is the same), or choose a smaller model or context_length."
        ) from cause
