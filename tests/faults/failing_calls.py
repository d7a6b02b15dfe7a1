"""Make the k-th call that changes the disk fail, or kill the process just before it."""

import builtins
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from scratchlm.core import atomic_replace

CALLS = ("rename", "replace", "fsync", "link", "unlink", "mkdir", "rmdir")


@contextlib.contextmanager
def counted_calls(at_call: Callable[[int], None], *, can_exchange: bool) -> Iterator[list[str]]:
    """Tell `at_call` the number of each call that changes the disk, before it is made; yields their names.

    can_exchange: off = as on a system without `renameat2`.
    """
    names: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            names.append(name)
            at_call(len(names))
            return real(*args, **kwargs)

        return call

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            names.append("open")
            at_call(len(names))
        return real_open(file, mode, *args, **kwargs)

    real_open = io.open
    exchange = counted("exchange", atomic_replace._exchange) if can_exchange else lambda one, other: False
    with contextlib.ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, counted(name, getattr(os, name))))
        for module in (io, builtins):
            stack.enter_context(mock.patch.object(module, "open", opened))
        stack.enter_context(mock.patch.object(atomic_replace, "_exchange", exchange))
        yield names


def count_calls(work: Callable[[], object], *, can_exchange: bool) -> list[str]:
    """The calls that a piece of work makes, in order."""
    with counted_calls(lambda number: None, can_exchange=can_exchange) as names:
        work()
    return names


def with_failing_call(work: Callable[[], object], k: int, *, can_exchange: bool, n_failures: int = 1) -> None:
    """Do the work while the k-th call, and n_failures - 1 after it, find a full disk."""

    def at_call(number: int) -> None:
        if k <= number < k + n_failures:
            raise OSError(28, "No space left on device")

    with counted_calls(at_call, can_exchange=can_exchange):
        work()


def killed_before_call(work: Callable[[], object], k: int, *, can_exchange: bool) -> bool:
    """Do the work in a child that is killed before its k-th call; False when it ended before."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            with counted_calls(
                lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == k else None,
                can_exchange=can_exchange,
            ):
                work()
            os._exit(0)
        print("the work failed", file=sys.stderr)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code != 0
