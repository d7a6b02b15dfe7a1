"""Whatever happens to a save, and to what it saved, the run loses one save at most and goes on by itself.

The first tests kill the process before a system call, or let the call fail as on a full or a read-only disk. They
continue a run from step 4 to step 8 in a process of its own: it saves twice, once beside the training and once at the
end, and deletes the older checkpoints. Every call of any of its threads that changes the run folder is a moment to
disturb. The quick form tries a few, the slow one more, the thorough one all of them.
"""

from __future__ import annotations

import errno
import random
import shutil
import signal
from dataclasses import replace

import pytest

from scratchlm.checkpoints.store import checkpoint_step, list_checkpoints, newest_good_checkpoint
from tests.faults.system_calls import run_watched, why_not
from tests.faults.test_mutated_files import mutate
from tests.thorough import THOROUGH
from tests.training.conftest import assert_same_run, assert_same_weights, finished, metrics, stopped_at

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


DAMAGES = ("bytes", "bytes", "bytes", "bytes", "gone", "empty", "folder", "older", "extra")


def damage_folder(checkpoint, older, draw):
    """Do something bad to a checkpoint folder."""
    file, kind = draw.choice(sorted(checkpoint.iterdir())), draw.choice(DAMAGES)
    if kind == "bytes":
        file.write_bytes(mutate(file.read_bytes(), draw.randrange(1 << 30)))
    elif kind == "extra":
        (checkpoint / "notes.txt").write_text("mine")
    else:
        file.unlink()
    if kind == "empty":
        file.touch()
    elif kind == "folder":
        file.mkdir()
    elif kind == "older":  # of the same run
        shutil.copy(older / file.name, file)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(range(10), id="quick"),
        pytest.param(
            range(10, 1000 if THOROUGH else 60),
            id="slow",
            marks=[pytest.mark.slow, pytest.mark.timeout(1200)],
        ),
    ],
)
def test_however_the_newest_checkpoint_is_damaged_the_run_ends_as_its_twin(tiny_run, tmp_path, numbers):
    """Resumed from the one before, or from the newest where that still says the same."""
    settings = {"max_steps": 8, "checkpoint_every_steps": 2, "eval_every_steps": 0, "keep_checkpoints": 3}

    def resumed(folder):
        trainer, train, val = tiny_run(folder, **settings)
        trainer.run = replace(trainer.run, facts={"data_fingerprint": "of the text"})
        trainer.fit(train, val, resume=True)
        return trainer

    twin = resumed(tmp_path / "twin")
    shutil.copytree(tmp_path / "twin", tmp_path / "stopped")
    shutil.rmtree(list_checkpoints(tmp_path / "stopped")[-1])
    for number in numbers:
        run = tmp_path / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(tmp_path / "stopped", run)
        older, newest = list_checkpoints(run)[-2:]
        damage_folder(newest, older, random.Random(number))
        trainer = resumed(run)
        assert trainer.resumed_from in (4, 6), number
        assert_same_weights(twin, trainer)
        assert metrics(run) == metrics(tmp_path / "twin")
