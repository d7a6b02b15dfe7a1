"""A run that is killed at any moment and resumed ends with the same bits as an undisturbed one."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scratchlm.checkpoints.store import checkpoint_step, newest_good_checkpoint
from tests.faults.commands import PATIENCE_S, Commands, start_launcher
from tests.processes import WORDS, start_command
from tests.thorough import THOROUGH

CLOCK = ("tokens_per_s", "elapsed_s", "memory_bytes")  # in which two equal runs may differ
N_STEPS, INTERVAL = 90, 10

MODEL = (
    "--model.n-layers 1 --model.emb-dim 32 --model.n-heads 2 --model.context-length 32 --model.drop-rate 0.2 "
    "--tokenizer.vocab-size 300"
)
PRETRAIN = (
    f"pretrain --data text.txt {MODEL} --batch-size 4 --accumulate 2 --max-steps {N_STEPS} "
    f"--eval-every-steps 15 --checkpoint-every-steps {INTERVAL} --sample-every-steps 20 --seed 5"
)
CLASSIFY = (
    "finetune classify --base base --data messages.tsv --train all --drop-rate 0.2 --max-steps 40 --batch-size 4 "
    "--eval-every-steps 10 --checkpoint-every-steps 8"
)
ENDLESS = f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 10000000 --checkpoint-every-steps 0 --out out"

# Code for a child to run first: it then kills itself as soon as something is true at an fsync. Each fsync is a moment
# at which a file or a folder is half-written, or new and not yet in its place.
KILLED_AT_FSYNC = """
import glob, signal
real, seen = os.fsync, 0
def fsync(descriptor):
    global seen
    seen += 1
    if {is_time}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
"""
SLOW_TO_SAVE = """
import time
import scratchlm.training.checkpointing
scratchlm.training.checkpointing.save_model = lambda *args, **kwargs: (open("saving", "w").close(), time.sleep(60))
"""


@pytest.fixture(scope="module")
def launcher() -> Iterator[subprocess.Popen[bytes]]:
    """The process that begins the others."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with start_launcher() as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def commands(tmp_path: Path, launcher: subprocess.Popen[bytes]) -> Iterator[Commands]:
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
    pairs = [{"prompt": f"Say {words(2)}", "chosen": words(1), "rejected": words(2)} for _ in range(60)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    found = Commands(tmp_path, launcher)
    yield found
    if found.running:  # the test failed; the next one needs the launcher
        for rank in range(len(found.running)):
            found.kill(rank)
        found.wait()


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


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("n_ranks", "n_kills"), [(1, 200 if THOROUGH else 8), (2, 200 if THOROUGH else 4)])
def test_killed_at_random_times_it_ends_as_the_undisturbed_run(commands, n_ranks, n_kills):
    """Runs are killed and resumed until they end; of two processes a random one is killed first.

    200 kills take two minutes of processor time with one process.
    """
    pretrain = f"{PRETRAIN} --max-steps {N_STEPS // n_ranks}"
    for _ in range(2):  # the first one compiles the decoding kernel
        started_at_s = time.monotonic()
        commands.start(f"{pretrain} --out undisturbed --fresh", n_ranks=n_ranks)
        assert commands.wait() == 0, commands.stderr
    usual_s = time.monotonic() - started_at_s
    draw, lost, n_runs = random.Random(n_ranks), [], 0
    while len(lost) < n_kills:
        run = commands.here / f"out{n_runs}"
        # Tokenizer and token shards are made anew; the kernel too, but only now and then, since that takes seconds.
        shutil.rmtree(commands.here / "home" / ("" if n_runs % 8 == 0 else "tokens"))
        n_runs += 1
        while True:
            has_begun = (run / "recipe.toml").exists()
            arguments = f"pretrain --resume --out {run.name}" if has_begun else f"{pretrain} --out {run.name}"
            commands.start(arguments, n_ranks=n_ranks)
            is_enough = len(lost) == n_kills
            if commands.has_ended_within(PATIENCE_S if is_enough else draw.uniform(0, usual_s)):
                assert commands.wait() == 0, commands.stderr
                break
            for rank in draw.sample(range(n_ranks), n_ranks):
                commands.kill(rank)
                time.sleep(draw.uniform(0, 0.1) if n_ranks > 1 else 0)
            commands.wait()
            lost.append(steps_lost(run))
        assert_same_training(run, commands.here / "undisturbed")
        assert [path for path in commands.here.rglob(".*") if path.name != ".lock"] == []
        print(
            f"{len(lost)} kills of {n_runs} runs, {n_ranks} processes; steps lost: at most {max(lost)}"
        )  # with -s
    assert n_runs < n_kills
    # An interval, and the steps done while the next checkpoint was being written: training waits before a second one.
    assert max(lost) <= 2 * INTERVAL


def steps_lost(run: Path) -> int:
    """How many steps of a killed run come after its newest intact checkpoint."""
    steps = [record["step"] for record in records(run / "metrics.jsonl")]
    newest, _ = newest_good_checkpoint(run)
    return max(steps, default=0) - (0 if newest is None else checkpoint_step(newest))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_while_writing_any_file_it_ends_as_the_undisturbed_run(commands):
    """Every fsync from the recipe to the report is a moment to die; a third of them, spread evenly, is tried."""
    short = f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 6 --checkpoint-every-steps 3 --out"
    counting = KILLED_AT_FSYNC.format(is_time="open('moments', 'w').write(str(seen)) == 0")
    commands.finish(f"{short} undisturbed", first=counting)
    n_moments = int((commands.here / "moments").read_text())
    assert n_moments > 20
    for moment in range(1, n_moments + 1, 3):
        shutil.rmtree(commands.here / "home")  # its token shards are made anew, and are moments too
        run = commands.here / f"out{moment}"
        commands.start(f"{short} {run.name}", first=KILLED_AT_FSYNC.format(is_time=f"seen == {moment}"))
        assert commands.wait() == -signal.SIGKILL
        has_begun = (run / "recipe.toml").exists()
        commands.finish(f"{short} {run.name} {'--resume' if has_begun else ''}")
        assert_same_training(run, commands.here / "undisturbed")


def test_killed_while_a_checkpoint_is_written_it_resumes_from_the_one_before(commands):
    short = (
        f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 6 --checkpoint-every-steps 3 --out out"
    )
    is_writing = "glob.glob('out/checkpoints/.step-00000006.partial-*')"
    commands.start(short, first=KILLED_AT_FSYNC.format(is_time=is_writing))
    assert commands.wait() == -signal.SIGKILL, commands.stderr
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
@pytest.mark.parametrize("lora", ["", "--lora-rank 2 --lora-dropout 0.1"], ids=["all weights", "lora"])
def test_preference_tuning_killed_twice_ends_as_the_undisturbed_run(commands, lora):
    commands.finish(f"{PRETRAIN} --out base --max-steps 5")
    prefer = (
        f"finetune prefer --base base --data pairs.json --template plain --drop-rate 0.1 --max-steps 60 {lora} "
        "--batch-size 4 --eval-every-steps 10 --checkpoint-every-steps 8 --max-new-tokens 4"
    )
    undisturbed = commands.finish(f"{prefer} --out undisturbed")
    commands.kill_when(f"{prefer} --out out", commands.has_lines("out/metrics.jsonl", 20))
    commands.kill_when("finetune prefer --out out --resume", commands.has_lines("out/metrics.jsonl", 45))
    resumed = commands.finish("finetune prefer --out out --resume")
    for key in ("step", "test_loss", "reward_margin", "kl", "base_likelier", "likelier"):
        assert resumed[key] == undisturbed[key]
    assert_same_training(commands.here / "out", commands.here / "undisturbed")
    if lora:
        adapters = [
            commands.here / name / "adapter" / "adapter_model.safetensors" for name in ("out", "undisturbed")
        ]
        assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.slow
def test_a_whole_life_killed_in_every_stage_ends_as_the_undisturbed_one(commands):
    stages = " ".join(
        f"--{stage}.max-steps 40 --{stage}.checkpoint-every-steps 10 --{stage}.batch-size 4"
        for stage in ("pretrain", "classify", "instruct")
    )
    life = f"run quickstart {stages} {MODEL} --instruct.max-new-tokens 4 --model.context-length 128"
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
    resumed = commands.finish("pretrain --out out --resume")
    assert str(weights.relative_to(commands.here)) in commands.stderr
    assert resumed["resumed_from"] == int(before.name.removeprefix("step-"))
    assert resumed["val_loss"] == undisturbed["val_loss"]


def test_a_disk_that_fills_up_while_saving_keeps_the_checkpoint_before(commands):
    short = f"pretrain --data text.txt {MODEL} --batch-size 4 --max-steps 6 --checkpoint-every-steps 3 --out"
    is_writing = "glob.glob('out/checkpoints/.step-00000006.partial-*')"
    no_space = KILLED_AT_FSYNC.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", "raise OSError(28, 'No space left')"
    )
    commands.start(f"{short} out", first=no_space.format(is_time=is_writing))
    assert commands.wait() == 3, commands.stderr
    last_line = commands.stderr.splitlines()[-1]
    assert last_line.startswith("scratchlm: error: out/checkpoints/")
    assert "could not be written: No space left" in last_line
    assert "Traceback" not in commands.stderr
    assert [path.name for path in (commands.here / "out/checkpoints").iterdir()] == ["step-00000003"]
    resumed = commands.finish("pretrain --out out --resume")
    assert resumed["val_loss"] == commands.finish(f"{short} undisturbed")["val_loss"]
    assert_same_training(commands.here / "out", commands.here / "undisturbed")


# --- SIGINT and SIGTERM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_polite_stop_saves_and_leaves_within_ten_seconds(commands, number, code):
    commands.start(ENDLESS)
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 5))
    asked_at_s = time.monotonic()
    commands.send(number)
    assert commands.wait() == code
    assert time.monotonic() - asked_at_s < 10
    assert (commands.here / "stdout").read_text() == ""
    assert "Traceback" not in commands.stderr
    [checkpoint] = checkpoints(commands.here / "out")
    step = int(checkpoint.name.removeprefix("step-"))
    last_line = commands.stderr.splitlines()[-1]
    assert last_line.startswith("scratchlm: stopped")
    assert "out" in last_line.split(";")[1]  # where to go on
    assert max(record["step"] for record in records(commands.here / "out/metrics.jsonl")) == step


@pytest.mark.slow
def test_ctrl_c_stops_the_program_itself_and_not_only_a_fork_of_it(commands):
    process = start_command(ENDLESS.split(), here=commands.here, stdout=subprocess.DEVNULL)
    try:
        commands.wait_until(commands.has_lines("out/metrics.jsonl", 5))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
    finally:
        process.kill()
        process.communicate()  # closes the pipe
    assert checkpoints(commands.here / "out")


@pytest.mark.slow
def test_what_was_stopped_politely_ends_as_the_undisturbed_run(commands):
    undisturbed = commands.finish(f"{PRETRAIN} --out undisturbed")
    commands.start(f"{PRETRAIN} --out out")
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 33))
    commands.send(signal.SIGINT)
    assert commands.wait() == 130
    resumed = commands.finish("pretrain --out out --resume")
    assert resumed["val_loss"] == undisturbed["val_loss"]
    assert records(commands.here / "out/metrics.jsonl") == records(
        commands.here / "undisturbed/metrics.jsonl"
    )


def test_a_second_ctrl_c_leaves_at_once(commands):
    commands.start(ENDLESS, first=SLOW_TO_SAVE)
    commands.wait_until(commands.has_lines("out/metrics.jsonl", 3))
    commands.send(signal.SIGINT)
    commands.wait_until((commands.here / "saving").exists)
    asked_at_s = time.monotonic()
    commands.send(signal.SIGINT)
    assert commands.wait() == 130
    assert time.monotonic() - asked_at_s < 5
