"""Several at once, each once, and a clean end."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from scratchlm.evaluation.judge import workers
from scratchlm.evaluation.judge.workers import in_parallel


@pytest.mark.parametrize("n_workers", [1, 3, 50])
def test_every_job_is_done_once(n_workers):
    assert sorted(in_parallel(lambda job: job * 2, range(20), n_workers=n_workers)) == [
        (i, 2 * i) for i in range(20)
    ]


def test_one_worker_is_the_callers_own_thread():
    (thread,) = {
        outcome for _, outcome in in_parallel(lambda job: threading.current_thread(), range(3), n_workers=1)
    }
    assert thread is threading.current_thread()


def test_no_job_is_no_work():
    assert list(in_parallel(str, [], n_workers=2)) == []


def test_as_many_are_under_way_as_there_are_workers():
    together = threading.Barrier(3, timeout=10)  # passes only when three wait at once
    assert len(list(in_parallel(lambda job: together.wait(), range(3), n_workers=3))) == 3


def test_an_exception_is_raised_where_the_outcomes_are_read():
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda job: 1 // job, [1, 0, 1], n_workers=1))


def test_who_leaves_early_begins_no_further_job_and_loses_none_under_way():
    begun, ended = [], []

    def work(job):
        begun.append(job)
        time.sleep(0.05)
        ended.append(job)

    with contextlib.closing(in_parallel(work, range(100), n_workers=2)) as run:
        next(run)
    assert len(begun) < 10
    assert sorted(begun) == sorted(ended)


def test_a_silent_judge_does_not_hold_who_leaves(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE_S", 0.1)
    release = threading.Event()
    started_at_s = time.monotonic()
    with contextlib.closing(in_parallel(lambda job: job and release.wait(30), [0, 1], n_workers=2)) as run:
        next(run)
    assert time.monotonic() - started_at_s < 10
    release.set()
