"""`scratchlm verify`: its exit code, its keys, and what it refuses."""

import json

import pytest

from scratchlm.book.ledger.table import Entry, read_table
from scratchlm.book.ledger.verifying import FIGURES
from scratchlm.cli.main import main


def test_figures_that_agree_exit_0_and_are_counted(capsys):
    assert main(["verify", "--chapter", "E", "--quick", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["agree"] == len(result["entries"]) > 0
    assert (result["differ"], result["not_run"]) == (0, 0)


def test_a_figure_that_differs_exits_1(capsys, monkeypatch):
    monkeypatch.setitem(FIGURES, "appendix-e.parameters", lambda: [0, 0])
    assert main(["verify", "--chapter", "E", "--quick"]) == 1
    assert "1 differ" in capsys.readouterr().out.splitlines()[-1]


def test_another_device_than_the_cpu_is_refused_not_ignored(capsys):
    assert main(["verify", "--chapter", "E", "--device", "cuda"]) == 2
    assert "computes on the CPU" in capsys.readouterr().err


def test_a_text_is_shown_as_one_line_in_the_same_marks_on_both_sides(capsys, monkeypatch):
    expected = next(e.expected for e in read_table() if e.id == "ch05.gpt2-sample")
    entry = Entry(id="ch04.untrained-text", what="x", provenance="x", expected=expected)
    monkeypatch.setattr("scratchlm.cli.verify.read_table", lambda: [entry])
    monkeypatch.setitem(FIGURES, entry.id, lambda: expected)
    assert main(["verify"]) == 0
    assert f"value {expected!r}, expected {expected!r}  (" in capsys.readouterr().out.splitlines()[1]


def test_a_training_that_ends_in_nan_differs_and_is_still_json(capsys, monkeypatch):
    entry = Entry(id="ch05.train-loss-after", what="x", provenance="x", below=1.0)
    monkeypatch.setattr("scratchlm.cli.verify.read_table", lambda: [entry])
    monkeypatch.setitem(FIGURES, entry.id, lambda: float("nan"))
    assert main(["verify", "--json"]) == 1
    [found] = json.loads(capsys.readouterr().out)["entries"]
    assert (found["value"], found["verdict"]) == ("nan", "differs")


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--quick", "--slow"], "got both"),
        (["--quick", "--chapter", "D"], "no figure of chapter D takes only seconds"),
        (["--seed", "5"], "got --seed 5"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(capsys, flags, found):
    assert main(["verify", *flags]) == 2
    assert found in capsys.readouterr().err
