"""Handle SIGINT and SIGTERM: training saves a checkpoint, then the process ends with exit code 130 or 143."""

import _thread
import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

Handlers = dict[signal.Signals, Any]  # the type that signal.signal takes and returns

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 10.0  # time for cleanup; after it the process ends even if code catches the exception


class StopRequest:
    """Records the signal that requests this process to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def is_made(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal_number is not None


class StoppedBySignal(BaseException):
    """Training saved and stopped after a signal; not an error, so that no `except Exception` catches it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """128 + signal, by the convention of shells: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal_number


class ProcessSignals:
    """The handlers for SIGINT and SIGTERM outside training, where there is nothing to save.

    While flags are parsed and modules imported, and after the command, the process ends at once: an exception could
    be lost in the code it interrupts, such as `except:` in a library or a weak reference's callback. Inside
    `unwinding` the first signal raises, so that files are closed and removed; after GRACE_S the process ends anyway.
    """

    def __init__(self) -> None:
        self.received: int | None = None  # the signal that is ending the command
        self._unwinds = False
        self._watch = contextlib.ExitStack()

    def install(self) -> Handlers:
        """Install the handlers and return the earlier ones; does nothing outside the main thread."""
        self.received = None
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}

    def remove(self, earlier: Handlers) -> None:
        """Restore the earlier handlers, in a process that continues after the command."""
        self._watch.close()
        for number, handler in earlier.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def unwinding(self) -> Iterator[None]:
        """Within the block a signal raises KeyboardInterrupt (SIGINT) or SystemExit (SIGTERM)."""
        self._unwinds = True
        try:
            yield
        finally:
            self._unwinds = False

    def _on_signal(self, signal_number: int, frame: FrameType | None) -> None:
        if self.received is not None or not self._unwinds:
            os._exit(128 + signal_number)
        self.received = signal_number
        self._watch.enter_context(_second_signal_ends(signal_number, grace_s=GRACE_S))
        raise KeyboardInterrupt if signal_number == signal.SIGINT else SystemExit(128 + signal_number)


process_signals = ProcessSignals()


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the block, the first SIGINT or SIGTERM only sets the request; a second one ends the process at once.

    Outside the main thread signals cannot be caught, and the request is never set.
    """
    request = StopRequest()
    watch = contextlib.ExitStack()

    def on_signal(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if request.is_made:
            os._exit(128 + signal_number)
        request.signal_number = signal_number
        watch.enter_context(_second_signal_ends(signal_number, grace_s=None))

    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    earlier = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
        watch.close()


@contextlib.contextmanager
def _second_signal_ends(first: int, *, grace_s: float | None) -> Iterator[None]:
    """Within the block another signal ends the process, even while the main thread runs C code; so does `grace_s`.

    Python calls handlers only between two bytecodes of the main thread, and a whole backward pass is one. The byte
    that the interpreter writes to the wake-up descriptor at a signal reaches a thread at once.
    """
    readable, writable = socket.socketpair()  # a pipe does not work on Windows
    writable.setblocking(False)
    earlier = signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)

    def wait_for_it() -> None:
        while select.select([readable], [], [], grace_s)[0]:
            number = readable.recv(1)
            if not number:  # the block has ended
                readable.close()
                return
            if number[0] in STOP_SIGNALS:
                os._exit(128 + number[0])
        os._exit(128 + first)

    # Not threading: its locks may be held by the code that was interrupted.
    _thread.start_new_thread(wait_for_it, ())
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        writable.close()
