"""Several questions under way at once, and a clean end when somebody stops them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")
PATIENCE_S = 2.0  # how long a stopped run waits for replies that are under way


def in_parallel(
    work: Callable[[Job], Outcome], jobs: Sequence[Job], *, n_workers: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Each job's place and outcome, as they come. An exception of a job is raised here.

    When the caller leaves early, by Ctrl-C for one, no further job is begun, and those under way get two seconds; a
    judge that is silent for longer does not hold the process.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome | None, BaseException | None]] = queue.SimpleQueue()
    is_stopped = threading.Event()
    for place in range(len(jobs)):
        todo.put(place)

    def serve() -> None:
        while not is_stopped.is_set():
            try:
                place = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((place, work(jobs[place]), None))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                done.put((place, None, error))

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(n_workers, len(jobs)))]
    try:
        for thread in threads:
            thread.start()
        for _ in jobs:
            place, outcome, error = done.get()
            if error is not None:
                raise error
            yield place, outcome  # type: ignore[misc]  # no error: there is an outcome
    finally:
        is_stopped.set()
        end_s = time.monotonic() + PATIENCE_S
        for thread in threads:
            thread.join(max(0.0, end_s - time.monotonic()))
