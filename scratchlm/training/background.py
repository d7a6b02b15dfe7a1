"""Run one job at a time in a background thread, such as writing a checkpoint while training continues."""

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundJob(Generic[T]):
    """At most one job at a time, whose result or error is collected by the thread that started it.

    The thread does not keep a process alive that ends before the job does: what it writes must be of no harm when it
    is incomplete.
    """

    def __init__(self) -> None:
        self._outcome: Future[T] | None = None

    def start(self, job: Callable[[], T]) -> None:
        """Run the job in a new thread; the one before must have been collected."""
        assert self._outcome is None, "the job before has not been collected"
        outcome = self._outcome = Future[T]()

        def run() -> None:
            try:
                outcome.set_result(job())
            except BaseException as error:  # noqa: BLE001  (raised where the job was started)
                outcome.set_exception(error)

        threading.Thread(target=run, name="checkpoint writer", daemon=True).start()

    def wait(self) -> None:
        """Wait for a running job; its result or error stays to be collected."""
        if self._outcome is not None:
            concurrent.futures.wait([self._outcome])

    def collect(self, *, wait: bool) -> T | None:
        """The result of a finished job, once; None if there is none. `wait` waits for one that is running.

        Raises: the error that ended the job.
        """
        outcome = self._outcome
        if outcome is None or not (wait or outcome.done()):
            return None
        self.wait()
        self._outcome = None
        return outcome.result()
