"""When memory runs out: say so in words that help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from scratchlm.core.errors import OutOfMemoryError


@contextlib.contextmanager
def memory_errors_explained(advice: str) -> Iterator[None]:
    """Turn torch's several ways of saying "no memory left" into OutOfMemoryError with advice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as cause:
        is_memory = isinstance(cause, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(
            cause
        )
        if not is_memory:
            raise
        raise OutOfMemoryError(f"there should be enough memory, found none left; {advice}.") from cause
