"""A run leaves out cores that other programs keep busy, and resumes with the number of threads that it began with."""

import json
import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest
import torch

from scratchlm.cli import run as run_command
from scratchlm.cli.main import main
from scratchlm.training.threads import earlier_threads, idle_threads
from tests.threads import torch_threads

TINY = "--model.n-layers 1 --model.emb-dim 16 --model.n-heads 2 --model.context-length 16 --tokenizer.vocab-size 300"
PRETRAIN = ["pretrain", "--data", "text.txt", *TINY.split(), "--batch-size", "4", "--max-steps", "2"]


@pytest.fixture(autouse=True)
def _two_threads():
    with torch_threads(2):
        yield


@pytest.mark.parametrize(
    ("busy", "n_idle"),
    [([0, 0], 2), ([100, 0], 1), ([30, 20], 2), ([100, 100], 1), ([95, 3, 1, 0, 0, 2, 0, 1], 2)],
)
def test_a_core_that_is_busy_counts_as_a_thread_less(monkeypatch, busy, n_idle):
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: busy)
    monkeypatch.setattr(psutil, "cpu_count", lambda: len(busy))
    assert idle_threads() == n_idle


@pytest.mark.skipif(psutil.cpu_count() > 8, reason="a container may own few of many cores")
def test_programs_that_keep_every_core_busy_are_noticed():
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(psutil.cpu_count())]
    try:
        time.sleep(0.2)
        assert idle_threads() == 1
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two threads, and as many idle cores as its value says."""
    (tmp_path / "text.txt").write_text("The cat sat on the mat and saw a bird.\n" * 60)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    idle = [1]
    monkeypatch.setattr(run_command, "idle_threads", lambda: idle[0])
    return idle


def test_a_run_goes_on_with_the_threads_it_began_with(machine, tmp_path, capsys):
    assert main([*PRETRAIN, "--out", "out"]) == 0
    assert "with 1 of 2 threads, other programs use the other cores; --threads 2" in capsys.readouterr().err
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    machine[0] = 2
    assert main(["pretrain", "--out", "out", "--resume", "--max-steps", "3"]) == 0
    assert "with 1 of 2 threads, as this run began" in capsys.readouterr().err
    newest = sorted((tmp_path / "out" / "checkpoints").iterdir())[-1]
    assert json.loads((newest / "manifest.json").read_text())["versions"]["threads"] == "1"
    torch.set_num_threads(2)
    assert main([*PRETRAIN, "--out", "out", "--fresh"]) == 0
    assert torch.get_num_threads() == 2


def test_a_number_that_was_named_is_used(machine, monkeypatch, capsys):
    assert main([*PRETRAIN, "--threads", "2"]) == 0
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "2")
    assert main(PRETRAIN) == 0
    assert torch.get_num_threads() == 2
    assert "of 2 threads" not in capsys.readouterr().err


def test_a_damaged_checkpoint_is_passed_over(machine, tmp_path):
    assert main([*PRETRAIN, "--out", "out"]) == 0
    (good,) = (tmp_path / "out" / "checkpoints").iterdir()
    damaged = shutil.copytree(good, good.with_name("step-9" + good.name[6:]))
    (damaged / "manifest.json").write_text('{"versions": 3}')
    assert earlier_threads([tmp_path / "out"]) == 1
    assert earlier_threads([tmp_path]) is None
