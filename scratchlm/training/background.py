"""Run one job at a time in a background thread, such as writing a checkpoint while training continues."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundJob(Generic[T]):
    """At most one job at a time, whose result or error is collected by the thread that started it.

    The thread does not keep a process alive that ends before the job does: what it writes must be of no harm when it
    is incomplete.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._result: list[T] = []
        self._error: BaseException | None = None

    def start(self, job: Callable[[], T]) -> None:
        """Run the job in a new thread; the one before must have been collected."""
        assert self._thread is None, "the job before has not been collected"

        def run() -> None:
            try:
                self._result.append(job())
            except BaseException as error:  # noqa: BLE001  (raised where the job was started)
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint writer", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for a running job; its result or error stays to be collected."""
        if self._thread is not None:
            self._thread.join()

    def collect(self, *, wait: bool) -> T | None:
        """The result of a finished job, once; None if there is none. `wait` waits for one that is running.

        Raises: the error that ended the job.
        """
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._result.pop()
