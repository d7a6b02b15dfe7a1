"""`scratchlm verify`: its exit code, its keys, and what it refuses."""

from __future__ import annotations

import json

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
