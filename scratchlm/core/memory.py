"""Recognise out-of-memory errors, advise which settings to lower, and keep freed memory for the next step."""

import contextlib
import ctypes
import errno
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scratchlm.core.errors import OutOfMemoryError, ScratchLMError

if sys.platform != "win32":
    import resource

# The messages of torch, CUDA, MPS, oneDNN, the dynamic loader, readers in Rust and Python's threads.
OUT_OF_MEMORY = re.compile(
    r"(can't|cannot|unable to|failed to|could not) (allocate|mmap|map segment|create a (memory|primitive))"
    r"|(out of|not enough) memory|bad_alloc|alloc_failed|can't start new thread"
    r"|without (exception set|setting an exception)",  # CPython's, when importing a module needs more than there is
    re.IGNORECASE,
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt(3)
KEPT_BYTES, LARGEST_KEPT_BLOCK = 2**31 - 1, 32 << 20  # the largest that mallopt accepts
NEAR_LIMIT_BYTES = 16 << 20
USUAL_KEPT_BYTES = 2 * LARGEST_KEPT_BLOCK  # what glibc comes to by itself


def give_freed_memory_back() -> None:
    """Give the system every whole page that this process has freed, before a block that the heap has no room for."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def freed_memory_kept(*, is_wanted: bool = True) -> Iterator[None]:
    """Let this process keep up to 2 GiB that it frees, in blocks below 32 MB; at the end it is given back.

    Each step of training allocates and frees the same blocks. glibc returns them to the system each time, which clears
    every page again at its next use: up to a sixth of a step. But it keeps them in pieces that fit no later request; if
    that is not wanted, blocks of a MiB or more return at once. Other C libraries are left as they are.
    """
    set_option = getattr(_c_library(), "mallopt", None)
    if set_option is None:
        yield
        return
    set_option(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK if is_wanted else 1 << 20)
    set_option(M_TRIM_THRESHOLD, KEPT_BYTES if is_wanted else USUAL_KEPT_BYTES)
    try:
        yield
    finally:
        set_option(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
        set_option(M_TRIM_THRESHOLD, USUAL_KEPT_BYTES)
        give_freed_memory_back()


@functools.cache
def _c_library() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc: musl, macOS and Windows have no such options."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "malloc_trim") else None


@contextlib.contextmanager
def memory_errors_explained(advice: str) -> Iterator[None]:
    """Turn any out-of-memory error into OutOfMemoryError with advice on what to lower."""
    try:
        yield
    except Exception as cause:
        if not is_out_of_memory(cause) and not _follows_from_the_limit(cause):
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


def _follows_from_the_limit(error: Exception) -> bool:
    """Whether another library's error, of any class, comes from a limit on this process's address space (`ulimit -v`).

    An import for which memory ends half way leaves an incomplete module, and if its error is caught, the next import
    says only that a name is missing. So any unknown error of a process that was as large as it may be counts.
    """
    if isinstance(error, ScratchLMError) or sys.platform != "linux":
        return False
    limit_bytes = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit_bytes == resource.RLIM_INFINITY:
        return False
    return limit_bytes - status_bytes("VmPeak") < NEAR_LIMIT_BYTES


def status_bytes(name: str) -> int:
    """A size of this process as Linux reports it, such as VmHWM, its largest resident set."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(rf"^{name}:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
