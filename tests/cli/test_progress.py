"""What a terminal shows while work goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from scratchlm.cli.progress import work_progress


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
        ("pretrain", ["learning a vocabulary", "tokenising"]),
        ("evaluate loss", ["tokenising", "reading"]),
        ("tokenizer train", ["learning a vocabulary"]),
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
