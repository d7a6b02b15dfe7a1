"""Limits on reading a hostile file: bounded time and memory, and no code runs."""

import codecs
import contextlib
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from scratchlm.core.errors import ScratchLMError

MAX_SECONDS = 2.0
SPARE_BYTES = 64 << 20
FORBIDDEN_EVENTS = (
    "compile",
    "exec",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
)
FORBIDDEN_PREFIX = "socket."
SYNTAX_ONLY = "<unknown>"  # the file name under which ast.literal_eval compiles: to a tree, not to a program
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

M_MMAP_THRESHOLD = -3  # mallopt(3)

_events: list[str] = []
_is_watching = False


def _map_large_blocks() -> None:
    """Make glibc map each block of 128 KB and more; its default keeps up to 32 MB for later use.

    What is kept is in the process's size already, so a block taken from it would not show.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 128 << 10)


_map_large_blocks()
# zipfile decodes old names with it; imported late, it would count as code that a file runs
codecs.lookup("cp437")


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if not _is_watching or not (event in FORBIDDEN_EVENTS or event.startswith(FORBIDDEN_PREFIX)):
        return
    if event != "compile" or arguments[1] != SYNTAX_ONLY:
        _events.append(event)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """List every forbidden event of the interpreter while the block runs."""
    global _is_watching  # noqa: PLW0603
    if not _events and not hasattr(_watch, "is_set"):
        sys.addaudithook(_watch)  # once set it cannot be removed
        _watch.is_set = True  # type: ignore[attr-defined]
    _events.clear()
    _is_watching = True
    try:
        yield _events
    finally:
        _is_watching = False


class Growth:
    """The maximum growth of the process in bytes, set when `measured_growth` ends."""

    n_bytes = 0


@contextlib.contextmanager
def measured_growth() -> Iterator[Growth]:
    """Measure the block alone: a lifetime's peak says nothing in a worker that was larger before.

    Linux starts its high-water mark anew when asked to; elsewhere a thread looks at the size every millisecond.
    """
    gc.collect()
    _map_large_blocks()  # again: training in this process has changed it
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory that is kept would hide what is taken
    growth, before = Growth(), psutil.Process().memory_info().rss
    if _reset_high_water():
        before = _status_bytes("VmRSS")
        yield growth
        growth.n_bytes = _status_bytes("VmHWM") - before
        return
    has_ended, peaks = threading.Event(), [before]

    def sample() -> None:
        while not has_ended.wait(0.001):
            peaks.append(max(peaks.pop(), psutil.Process().memory_info().rss))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield growth
    finally:
        has_ended.set()
        sampler.join()
    growth.n_bytes = peaks[0] - before


def _reset_high_water() -> bool:
    try:
        CLEAR_REFS.write_text("5")  # proc(5)
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def read_within_limits(read: Callable[[], object], *, size_bytes: int, what: str) -> bool:
    """Read one file; True when it loaded, False for one of our errors. Anything else fails the test."""
    with watched() as events, measured_growth() as growth:
        started_at_s = time.perf_counter()
        is_loaded = try_to_read(read, what=what)
        elapsed_s = time.perf_counter() - started_at_s
    assert not events, f"{what} caused {events}"
    assert elapsed_s < MAX_SECONDS, f"{what} took {elapsed_s:.1f} s"
    check_growth(growth, size_bytes=size_bytes, what=what)
    return is_loaded


def try_to_read(read: Callable[[], object], *, what: str) -> bool:
    """Whether it loaded; one of our errors counts as no."""
    try:
        read()
    except ScratchLMError:
        return False
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}") from error
    return True


def check_growth(growth: Growth, *, size_bytes: int, what: str) -> None:
    """A reader may take 64 MB and twice the file's size."""
    limit = SPARE_BYTES + 2 * size_bytes
    assert growth.n_bytes <= limit, f"{what} took {growth.n_bytes >> 20} MB, {limit >> 20} MB are allowed"


def attack(read: Callable[[bytes], object], *, good: bytes, damage: Callable[[int], bytes], n: int) -> None:
    """Read n damaged variants of a good file; a foreign error, a forbidden event, a delay or growth fails."""
    read(good)  # whatever is imported late is imported now
    n_loaded = 0
    with watched() as events, measured_growth() as growth:
        for number in range(n):
            data, what = damage(number), f"damage {number}"
            started_at_s = time.perf_counter()
            n_loaded += try_to_read(lambda data=data: read(data), what=what)  # type: ignore[misc]
            elapsed_s = time.perf_counter() - started_at_s
            assert elapsed_s < MAX_SECONDS, f"{what} took {elapsed_s:.1f} s"
            assert not events, f"{what} caused {events}"
    assert n_loaded < n
    check_growth(growth, size_bytes=len(good), what=f"{n} damaged files")
