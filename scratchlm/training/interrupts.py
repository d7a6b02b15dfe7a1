"""Ctrl-C and SIGTERM as a polite request: finish the step, save, leave."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether somebody asked this process to stop, and with which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def is_made(self) -> bool:
        """Has a signal arrived?"""
        return self.signal_number is not None


class StoppedBySignal(BaseException):
    """Training saved and stopped because a signal asked for it; not an error, so no `except Exception` stops it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """128 + signal, as shells count: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal_number


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block, the first SIGINT or SIGTERM only sets the request; a second one ends the process at once.

    Outside the main thread signals cannot be caught, and the request is never made.
    """
    request = StopRequest()

    def on_signal(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if request.is_made:
            os._exit(128 + signal_number)
        request.signal_number = signal_number

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    caught = (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, on_signal) for number in caught}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
