"""Recognise out-of-memory errors, and advise which settings to lower."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from scratchlm.core.errors import OutOfMemoryError, ScratchLMError

# The messages of torch, CUDA, MPS, oneDNN, the dynamic loader, readers in Rust and Python's threads.
OUT_OF_MEMORY = re.compile(
    r"(can't|cannot|unable to|failed to|could not) (allocate|mmap|map segment|create a (memory|primitive))"
    r"|(out of|not enough) memory|bad_alloc|alloc_failed|can't start new thread"
    r"|without (exception set|setting an exception)",  # CPython's, when importing a module needs more than there is
    re.IGNORECASE,
)


@contextlib.contextmanager
def memory_errors_explained(advice: str) -> Iterator[None]:
    """Turn any out-of-memory error into OutOfMemoryError with advice on what to lower."""
    try:
        yield
    except Exception as cause:
        if not is_out_of_memory(cause):
            raise
        found = " ".join(str(cause).split())[:200]
        raise OutOfMemoryError(f"memory ran out{f' ({found})' if found else ''}; {advice}.") from cause


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, of any class, means that memory ran out and has no advice yet.

    One of our own errors counts when its cause is another library's out-of-memory error, such as a file that
    could not be mapped. A plain MemoryError as cause does not: parsers raise it for nesting that is too deep.
    """
    if isinstance(error, ScratchLMError):
        cause = error.__cause__
        is_explained = isinstance(error, OutOfMemoryError) or type(cause) is MemoryError
        return cause is not None and not is_explained and is_out_of_memory(cause)
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return bool(OUT_OF_MEMORY.search(str(error)))
