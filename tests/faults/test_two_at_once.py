"""Of two processes that start the same run, one runs, the other is refused, and nothing is damaged."""

import contextlib
import os
import random
import sys
import time
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints, verify
from scratchlm.cli.main import main
from scratchlm.training.history import History
from tests.thorough import THOROUGH

N_TRIES = 20 if THOROUGH else 6
MODEL = "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 16 --tokenizer.vocab-size 270"
COMMAND = (
    f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 1000 --checkpoint-every-steps 250 --out"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a text, prepared once by a first run."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    Path("text.txt").write_text("".join(f"The cat number {i} sat on the mat.\n" for i in range(300)))
    assert wait(start(f"{COMMAND} alone", "alone.err")) == 0
    return tmp_path


def start(command: str, errors: str, *, delay_s: float = 0.0) -> int:
    """Begin a command in a child process, after a while; its process id."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            time.sleep(delay_s)
            with Path(os.devnull).open("w") as nowhere, Path(errors).open("a") as said:
                sys.stdout, sys.stderr = nowhere, said  # pytest's own would keep what is said
                code = main(command.split())
            os._exit(code)
        os._exit(99)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def two_at_once(command: str, draw: random.Random) -> tuple[list[int], str]:
    """The exit codes of the two in ascending order, and what was said on standard error."""
    names = ("one.err", "other.err")
    for name in names:
        Path(name).write_text("")
    children = [start(command, name, delay_s=draw.uniform(0, 0.3)) for name in names]
    codes = [wait(child) for child in children]
    return sorted(codes), "".join(Path(name).read_text() for name in names)


def assert_undamaged(run: Path, alone: Path) -> None:
    folders = list_checkpoints(run)
    assert [folder.name for folder in folders] == [folder.name for folder in list_checkpoints(alone)]
    for folder in folders:
        verify(folder)
        weights = [
            (one / "checkpoints" / folder.name / "model.safetensors").read_bytes() for one in (run, alone)
        ]
        assert weights[0] == weights[1]
    steps = [
        [r["train_loss"] for r in History(one / "metrics.jsonl").records() if r["kind"] == "step"]
        for one in (run, alone)
    ]
    assert steps[0] == steps[1]
    hidden = [path for path in run.rglob(".*") if path.name != ".lock"]
    assert hidden == []


def test_of_two_that_start_a_run_exactly_one_runs_and_nothing_is_damaged(here):
    draw, n_refused_by_lock = random.Random(0), 0
    for number in range(N_TRIES):
        codes, said = two_at_once(f"{COMMAND} run{number}", draw)
        assert codes == [0, 2], said
        assert "Traceback" not in said
        n_refused_by_lock += "is in use by process" in said
        assert_undamaged(here / f"run{number}", here / "alone")
    print(f"{N_TRIES} tries, {n_refused_by_lock} refused by the lock")  # the others find a run already there


def test_of_two_that_resume_or_start_over_exactly_one_runs_and_nothing_is_damaged(here):
    draw = random.Random(1)
    assert wait(start(f"{COMMAND} run --max-steps 50", "first.err")) == 0
    codes, said = two_at_once("pretrain --out run --resume --max-steps 1500", draw)
    assert codes == [0, 2], said
    assert "is in use by process" in said
    for _ in range(5):
        codes, said = two_at_once(f"{COMMAND} run --fresh", draw)
        assert codes == [0, 2], said
        assert "is in use by process" in said
        assert_undamaged(here / "run", here / "alone")
