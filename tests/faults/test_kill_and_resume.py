"""Killed at any moment and resumed, a run ends as if nothing had happened: the same to the last bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    "cat",
    "dog",
    "bird",
    "mouse",
    "sat",
    "ran",
    "slept",
    "on",
    "under",
    "the",
    "mat",
    "log",
    "tree",
    "saw",
]
CLOCK = ("tokens_per_s", "elapsed_s", "memory_bytes")  # what two equal runs may differ in
PATIENCE_S = 120.0  # for a process on a busy machine to get somewhere
N_STEPS = 90

MODEL = (
    "--model.n-layers 1 --model.emb-dim 32 --model.n-heads 2 --model.context-length 32 --model.drop-rate 0.2 "
    "--tokenizer.vocab-size 300"
)
PRETRAIN = (
    f"pretrain --data text.txt {MODEL} --batch-size 4 --accumulate 2 --max-steps {N_STEPS} "
    "--eval-every-steps 15 --checkpoint-every-steps 10 --sample-every-steps 20 --seed 5"
)
CLASSIFY = (
    "finetune classify --base base --data messages.tsv --train all --drop-rate 0.2 --max-steps 40 --batch-size 4 "
    "--eval-every-steps 10 --checkpoint-every-steps 8"
)
ENDLESS = f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 10000000 --checkpoint-every-steps 0 --out out"

# Runs a command that kills itself at its n-th fsync: each is a moment at which a file is half-written or new.
KILLED_AT_FSYNC = """
import os, signal, sys
last, argv = int(sys.argv[1]), sys.argv[2:]
real, seen = os.fsync, 0
def fsync(descriptor):
    global seen
    seen += 1
    if seen == last:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
from scratchlm.cli.main import main
sys.exit(main(argv))
"""
# Runs a command whose checkpoints take a minute to write.
SLOW_TO_SAVE = """
import sys, time
import scratchlm.training.trainer as trainer
trainer.save_model = lambda *args, **kwargs: (print("saving", file=sys.stderr, flush=True), time.sleep(60))
from scratchlm.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Commands:
    """Runs scratchlm in processes of their own, in one working folder."""

    here: Path

    def start(self, command: str, *program: str) -> subprocess.Popen[str]:
        """Begin a command, and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, *(program or ("-m", "scratchlm")), *command.split()],
            cwd=self.here,
            env={**os.environ, "SCRATCHLM_HOME": str(self.here / "home"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, command: str) -> dict[str, Any]:
        """Run a command with --json to its good end; returns what it printed."""
        process = self.start(f"{command} --json")
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        found = json.loads(out)
        assert isinstance(found, dict)
        return found

    def kill_when(self, command: str, is_time: Callable[[], bool]) -> None:
        """Run a command and kill it, without a chance to tidy up, as soon as it is time."""
        process = self.start(command)
        self.wait_until(is_time, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had ended before it could be killed"

    def wait_until(self, is_time: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        """Look every millisecond; a process that ends first, or never gets there, fails the test."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        while not is_time():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < give_up_at_s, "it never got there"
            time.sleep(0.001)

    def has_lines(self, file: str, n: int) -> Callable[[], bool]:
        """Has a log grown to so many lines?"""
        path = self.here / file
        return lambda: path.exists() and path.read_bytes().count(b"\n") >= n


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """A working folder with `text.txt`, `messages.tsv` and `entries.json`."""
    draw = random.Random(0)

    def words(n: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(n))

    (tmp_path / "text.txt").write_text("".join(f"The {words(8)}.\n" for _ in range(400)))
    spam = [f"spam\twin a free prize now {words(6)}\n" for _ in range(60)]
    ham = [f"ham\tsee you at home {words(6)}\n" for _ in range(60)]
    (tmp_path / "messages.tsv").write_text("".join(spam + ham))
    entries = [{"instruction": f"Say {words(2)}", "output": words(1)} for _ in range(60)]
    (tmp_path / "entries.json").write_text(json.dumps(entries))
    return Commands(here=tmp_path)


def checkpoints(run: Path) -> list[Path]:
    """A run's finished checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def records(file: Path) -> list[dict[str, Any]]:
    """A log's records without what the clock has written."""
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [{key: value for key, value in record.items() if key not in CLOCK} for record in found]


def assert_same_training(run: Path, undisturbed: Path) -> None:
    """The same weights, byte for byte, in the same checkpoints; the same metrics and samples in the same order."""
    assert records(run / "metrics.jsonl") == records(undisturbed / "metrics.jsonl")
    assert records(run / "samples.jsonl") == records(undisturbed / "samples.jsonl")
    names = [folder.name for folder in checkpoints(undisturbed)]
    assert [folder.name for folder in checkpoints(run)] == names
    for name in names:
        for file in ("model.safetensors", "training_state.safetensors", "tokenizer.json", "config.json"):
            both = [folder / "checkpoints" / name / file for folder in (run, undisturbed)]
            assert both[0].read_bytes() == both[1].read_bytes(), (name, file)


# --- SIGKILL ---------------------------------------------------------------------------------------------------


def test_killed_once_and_resumed_it_ends_as_the_undisturbed_run(commands):
    undisturbed = commands.finish(f"{PRETRAIN} --out undisturbed")
    commands.kill_when(f"{PRETRAIN} --out out", commands.has_lines("out/metrics.jsonl", 47))
    resumed = commands.finish("pretrain --out out --resume")
    assert resumed["resumed_from"] is not None
    for key in ("step", "train_loss", "val_loss", "bits_per_byte", "tokens"):
        assert resumed[key] == undisturbed[key]
    assert_same_training(commands.here / "out", commands.here / "undisturbed")


@pytest.mark.slow
def test_killed_three_times_it_ends_as_the_undisturbed_run(commands):
    undisturbed = commands.finish(f"{PRETRAIN} --out undisturbed")
    commands.kill_when(
        f"{PRETRAIN} --out out", commands.has_lines("out/metrics.jsonl", 3)
    )  # no checkpoint yet
    assert checkpoints(commands.here / "out") == []
    for n_lines in (38, 75):
        commands.kill_when("pretrain --out out --resume", commands.has_lines("out/metrics.jsonl", n_lines))
        assert checkpoints(commands.here / "out")
    resumed = commands.finish("pretrain --out out --resume")
    assert resumed["val_loss"] == undisturbed["val_loss"]
    assert_same_training(commands.here / "out", commands.here / "undisturbed")


def fsyncs_of(command: str, commands: Commands) -> int:
    """How many moments there are: the command is run once, counting."""
    counting = KILLED_AT_FSYNC.replace("sys.exit(main(argv))", "main(argv); print(seen)")
    out, err = commands.start(f"0 {command}", "-c", counting).communicate(timeout=PATIENCE_S)
    assert out, err
    return int(out.splitlines()[-1])


@pytest.mark.slow
def test_killed_while_writing_any_file_it_ends_as_the_undisturbed_run(commands):
    """Every fsync from the recipe to the report is a moment to die; a third of them, spread evenly, is tried."""
    short = f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 6 --checkpoint-every-steps 3 --out"
    n_moments = fsyncs_of(f"{short} undisturbed", commands)
    assert n_moments > 20
    for moment in range(1, n_moments + 1, 3):
        out = f"out{moment}"
        process = commands.start(f"{moment} {short} {out}", "-c", KILLED_AT_FSYNC)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGKILL
        has_recipe = (commands.here / out / "recipe.toml").exists()
        commands.finish(f"{short} {out} {'--resume' if has_recipe else ''}")
        assert_same_training(commands.here / out, commands.here / "undisturbed")
        leftovers = [path for path in (commands.here / out).rglob("*") if ".partial-" in path.name]
        assert leftovers == [], moment


def test_killed_while_a_checkpoint_is_written_it_resumes_from_the_one_before(commands):
    short = (
        f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 6 --checkpoint-every-steps 3 --out out"
    )
    is_writing = KILLED_AT_FSYNC.replace(
        "if seen == last:",
        "if [p for p in __import__('glob').glob('out/checkpoints/.step-00000006.partial-*')]:",
    )
    process = commands.start(f"0 {short}", "-c", is_writing)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL, err
    assert [folder.name for folder in checkpoints(commands.here / "out")] == ["step-00000003"]
    resumed = commands.finish("pretrain --out out --resume")
    assert (resumed["resumed_from"], resumed["step"]) == (3, 6)
    assert [path for path in (commands.here / "out").rglob("*") if ".partial-" in path.name] == []


@pytest.mark.slow
def test_a_classifier_killed_twice_ends_as_the_undisturbed_one(commands):
    commands.finish(f"{PRETRAIN} --out base --max-steps 5")
    undisturbed = commands.finish(f"{CLASSIFY} --out undisturbed")
    commands.kill_when(f"{CLASSIFY} --out out", commands.has_lines("out/metrics.jsonl", 20))
    commands.kill_when(
        "finetune classify --out out --resume", commands.has_lines("out/raw-split/metrics.jsonl", 15)
    )
    resumed = commands.finish("finetune classify --out out --resume")
    for key in ("test_accuracy", "test_accuracy_raw", "macro_f1", "confusion", "step"):
        assert resumed[key] == undisturbed[key]
    for part in ("", "raw-split"):
        assert_same_training(commands.here / "out" / part, commands.here / "undisturbed" / part)


@pytest.mark.slow
def test_a_whole_life_killed_in_every_stage_ends_as_the_undisturbed_one(commands):
    life = (
        (
            f"run quickstart {MODEL} --pretrain.max-steps 40 --pretrain.checkpoint-every-steps 10 --pretrain.batch-size 4 "
            "--classify.max-steps 40 --classify.checkpoint-every-steps 10 --classify.batch-size 4 "
            "--instruct.max-steps 40 --instruct.checkpoint-every-steps 10 --instruct.batch-size 4 "
            "--instruct.max-new-tokens 4 --model.context-length 128 --tokenizer.vocab-size 400"
        )
        .replace("--model.context-length 32 ", "")
        .replace("--tokenizer.vocab-size 300 ", "")
    )
    undisturbed = commands.finish(f"{life} --out undisturbed")
    for log in ("metrics.jsonl", "classify/metrics.jsonl", "instruct/metrics.jsonl"):
        commands.kill_when(f"{life} --out out", commands.has_lines(f"out/{log}", 25))
    resumed = commands.finish(f"{life} --out out")
    for stage, key in (("pretrain", "val_loss"), ("classify", "test_accuracy"), ("instruct", "val_loss")):
        assert resumed[stage][key] == undisturbed[stage][key]
        assert resumed[stage]["resumed_from"] is not None
    for part in ("", "classify", "classify/raw-split", "instruct"):
        assert_same_training(commands.here / "out" / part, commands.here / "undisturbed" / part)


# --- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(commands):
    undisturbed = commands.finish(f"{PRETRAIN} --out undisturbed")
    commands.kill_when(f"{PRETRAIN} --out out", commands.has_lines("out/metrics.jsonl", 60))
    before, newest = checkpoints(commands.here / "out")[-2:]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    process = commands.start("pretrain --out out --resume --json")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert str(weights.relative_to(commands.here)) in err
    resumed = json.loads(out)
    assert resumed["resumed_from"] == int(before.name.removeprefix("step-"))
    assert resumed["val_loss"] == undisturbed["val_loss"]


# --- SIGINT and SIGTERM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_polite_stop_saves_and_leaves_within_ten_seconds(commands, number, code):
    process = commands.start(ENDLESS)
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 5), process)
    asked_at_s = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - asked_at_s < 10
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    [checkpoint] = checkpoints(commands.here / "out")
    step = int(checkpoint.name.removeprefix("step-"))
    assert err.splitlines()[-1] == f"scratchlm: stopped after step {step}; resume from out."
    assert max(record["step"] for record in records(commands.here / "out/metrics.jsonl")) == step


@pytest.mark.slow
def test_what_was_stopped_politely_ends_as_the_undisturbed_run(commands):
    undisturbed = commands.finish(f"{PRETRAIN} --out undisturbed")
    process = commands.start(f"{PRETRAIN} --out out")
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 33), process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    resumed = commands.finish("pretrain --out out --resume")
    assert resumed["val_loss"] == undisturbed["val_loss"]
    assert records(commands.here / "out/metrics.jsonl") == records(
        commands.here / "undisturbed/metrics.jsonl"
    )


def test_a_second_ctrl_c_leaves_at_once(commands):
    process = commands.start(ENDLESS, "-c", SLOW_TO_SAVE)
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 3), process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "saving" not in process.stderr.readline():
        pass
    asked_at_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert time.monotonic() - asked_at_s < 5
