"""Whichever system call of a save a kill, a full disk or a read-only one comes before, the run loses one save at most.

Each test continues a run from step 4 to step 8 in a process of its own: it saves twice, once beside the training and
once at the end, and deletes the older checkpoints. Every call of any of its threads that changes the run folder is a
moment to disturb. The quick form tries a few, the slow one more, the thorough one all of them.
"""

from __future__ import annotations

import errno
import shutil
import signal

import pytest

from scratchlm.checkpoints.store import checkpoint_step, newest_good_checkpoint
from tests.faults.system_calls import run_watched, why_not
from tests.thorough import THOROUGH
from tests.training.conftest import assert_same_run, finished, metrics, stopped_at

N_CALLS = 130  # fewer than there are
INTERVAL = 2
SETTINGS = {"max_steps": 8, "checkpoint_every_steps": INTERVAL, "eval_every_steps": 0, "keep_checkpoints": 1}


class Continued:
    """A run that was stopped after step 4, continued in a watched process, and its undisturbed twin."""

    def __init__(self, tiny_run, folder):
        self.tiny_run, self.here, self.run = tiny_run, folder, folder / "run"
        finished(tiny_run(folder / "undisturbed", **SETTINGS))
        stopped_at(tiny_run(folder / "stopped", **SETTINGS), 4)

    def resume(self):
        """Continue the run to its end."""
        finished(self.tiny_run(self.run, **SETTINGS), resume=True)

    def disturbed(self, answer):
        """Continue the run in a process whose calls get this answer; returns its exit code and the number of calls."""
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.here / "stopped", self.run)
        code, calls = run_watched(self.resume, answer, within=self.run)
        assert any(call.in_background for call in calls) or code != 0
        return code, len(calls)

    def check(self):
        """A valid checkpoint of one save ago, or newer, is there; started again the run ends as its twin."""
        folder, _ = newest_good_checkpoint(self.run)
        assert folder is not None
        # Steps since it was taken: an interval, and those done while the next one was being written. These are at most
        # another interval, because a save waits for the one before.
        assert metrics(self.run)[-1]["step"] - checkpoint_step(folder) <= 2 * INTERVAL
        self.resume()
        assert_same_run(self.run, self.here / "undisturbed")


@pytest.fixture
def continued(tiny_run, tmp_path):
    """A run to disturb."""
    if problem := why_not():
        pytest.skip(problem)
    return Continued(tiny_run, tmp_path)


def some_calls(quick, slow):
    """The numbers of the calls to try, every n-th in the quick and in the slow form."""
    often = 1 if THOROUGH else slow
    slow_form = pytest.param(
        range(1, 1000, often), marks=[pytest.mark.slow, pytest.mark.timeout(1200)], id="slow"
    )
    return pytest.mark.parametrize(
        "numbers", [pytest.param(range(quick // 2, N_CALLS, quick), id="quick"), slow_form]
    )


@some_calls(quick=40, slow=8)
def test_killed_before_any_system_call_it_ends_as_its_twin(continued, numbers):
    for number in numbers:
        code, n_calls = continued.disturbed(
            lambda call, k=number: -signal.SIGKILL if call.number == k else None
        )
        if n_calls < number:
            assert code == 0
            assert n_calls > N_CALLS
            return
        assert code == -signal.SIGKILL, number
        continued.check()


@some_calls(quick=80, slow=24)
@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("n_failures", [1, 1000], ids=["once", "from there on"])
def test_a_disk_that_fails_at_any_system_call_is_our_error_and_nothing_is_lost(
    continued, numbers, problem, n_failures
):
    for number in numbers:
        code, n_calls = continued.disturbed(
            lambda call, k=number: problem if k <= call.number < k + n_failures else None
        )
        if n_calls < number:
            assert n_calls > N_CALLS
            return
        assert code in (0, 2, 3), number  # 0: a file that stays behind is no error
        continued.check()
