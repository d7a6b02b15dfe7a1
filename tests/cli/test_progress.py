"""What a terminal shows while work goes on."""

import io
import re
from contextlib import closing

import pytest
from rich.console import Console

from scratchlm.cli.progress import TrainingProgress, work_progress
from scratchlm.training.callbacks import StepRecord


def shown(*, is_terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=100)
    with work_progress(console)("tokenising") as report:
        report(30, 120)
    return stream.getvalue()


def test_a_terminal_shows_what_is_done_and_how_much_of_it():
    assert "tokenising" in shown(is_terminal=True)
    assert "25%" in shown(is_terminal=True)


def test_a_file_gets_no_moving_bar():
    assert shown(is_terminal=False) == ""


def test_a_bar_ends_with_its_work_even_when_that_fails():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(ZeroDivisionError), work_progress(console)("one") as report:
        report(1, 0 // 0)
    with work_progress(console)("two"):  # rich refuses a second bar beside a living one
        pass


COMMANDS = {
    "pretrain": "--data {text.txt} --out run --max-steps 1 --tokenizer.vocab-size 300 --model.n-layers 1",
    "evaluate loss": "--model {base} --data {text.txt}",
    "tokenizer train": "--data {text.txt} --vocab-size 300",
}


@pytest.mark.parametrize(
    ("command", "works"),
    [
        ("pretrain", ["training a tokenizer", "tokenising"]),
        ("evaluate loss", ["tokenising", "reading"]),
        ("tokenizer train", ["training a tokenizer"]),
    ],
)
def test_reading_commands_show_their_work(life, run, monkeypatch, command, works):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes standard error for a terminal
    flags = COMMANDS[command]
    for name in ("text.txt", "base"):
        flags = flags.replace(f"{{{name}}}", life[name])
    code, _, err = run(f"{command} {flags}")
    assert code == 0, err
    for work in works:
        assert work in err


def record(step: int) -> StepRecord:
    return StepRecord(
        step=step, n_steps=600, epoch=0, tokens=90, train_loss=0.664, learning_rate=1e-3, grad_norm=1.0,
        tokens_per_s=6006.0, elapsed_s=1.0, memory_bytes=2**30,
    )  # fmt: skip


def unstyled(stream: io.StringIO) -> str:
    """What was shown, without colours and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_resumed_training_says_from_which_step_it_resumes(is_terminal):
    stream = io.StringIO()
    with closing(
        TrainingProgress(Console(file=stream, force_terminal=is_terminal, width=200), "[1/3] pretrain")
    ) as progress:
        for step in (501, 502):
            progress.on_step(record(step))
    assert unstyled(stream).count("[1/3] pretrain: resuming from step 500") == 1


def test_a_new_training_resumes_nothing():
    stream = io.StringIO()
    progress = TrainingProgress(Console(file=stream, width=200), "pretrain")
    for step in (1, 2, 1):
        progress.on_step(record(step))
    assert "resuming" not in stream.getvalue()


def test_the_bar_shows_the_stage_and_the_last_figures():
    stream = io.StringIO()
    with closing(
        TrainingProgress(Console(file=stream, force_terminal=True, width=200), "[2/3] classify")
    ) as progress:
        progress.on_step(record(1))
        progress.on_evaluation(1, {"val_loss": 0.278})
        progress.on_step(record(2))
    shown = unstyled(stream)
    assert "[2/3] classify" in shown
    assert "loss 0.664  val loss 0.278  6,006 tokens/s" in shown


def test_a_second_training_begins_without_the_figures_of_the_first():
    stream = io.StringIO()
    progress = TrainingProgress(Console(file=stream, width=200), "classify")
    progress.on_step(record(1))
    progress.on_evaluation(1, {"val_loss": 0.278})
    progress.on_evaluation(0, {"val_loss": 0.699})
    last, first = stream.getvalue().splitlines()
    assert "step 1/600  loss 0.664  val loss 0.278  6,006 tokens/s" in last
    assert first == "classify: step 0  val loss 0.699"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (", they\n met", "Once upon a time, they met"),
        (" there\n\nwas", "Once upon a time there was"),
        ("s.", "Once upon a times."),
    ],
)
def test_a_sample_continues_its_prompt_without_a_space_of_ours(text, shown):
    stream = io.StringIO()
    TrainingProgress(Console(file=stream, width=200), "pretrain").on_sample(5, "Once upon a time", text)
    assert stream.getvalue() == f"step 5: {shown}\n"
