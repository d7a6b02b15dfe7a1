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

    A job is begun when an outcome has been taken, so no more are under way than there are workers. When the caller
    leaves early, by Ctrl-C for one, those under way get two seconds; a judge that is silent for longer does not hold
    the process. One worker is the caller's own thread: Ctrl-C then ends even a model that computes in this process,
    whose thread could not be left behind (torch aborts a process that ends around it).
    """
    if n_workers == 1:
        for place, job in enumerate(jobs):
            yield place, work(job)
        return
    todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Outcome | None, BaseException | None]] = queue.SimpleQueue()

    def serve() -> None:
        while (place := todo.get()) is not None:
            try:
                done.put((place, work(jobs[place]), None))
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                done.put((place, None, error))

    n_threads = min(n_workers, len(jobs))
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(n_threads)]
    try:
        for place, thread in enumerate(threads):
            thread.start()
            todo.put(place)
        for n_begun in range(n_threads, n_threads + len(jobs)):
            place, outcome, error = done.get()
            if error is not None:
                raise error
            yield place, outcome  # type: ignore[misc]  # no error: there is an outcome
            if n_begun < len(jobs):
                todo.put(n_begun)
    finally:
        for _ in threads:
            todo.put(None)
        end_s = time.monotonic() + PATIENCE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end_s - time.monotonic()))
