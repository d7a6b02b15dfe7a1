"""`scratchlm runs list`: list the runs in the runs folder."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.terminal import print_columns
from scratchlm.reports.formats import MISSING, count, decimal, duration, file_size, is_number, percent
from scratchlm.reports.found_runs import FoundRun, find_runs

MAX_SHOWN = 90  # maximum characters of results or problem; `runs show` has the full text
# The main metric of each stage, its display name and its format.
HEADLINES: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "pretrain": ("val_loss", "loss", lambda value: decimal(value, 3)),
    "classify": ("test_accuracy", "classified right", percent),
    "instruct": ("exact_match", "answered exactly", percent),
    "prefer": ("test_accuracy", "preferred", percent),
}


@dataclass(frozen=True, kw_only=True)
class RunsList(Common):
    """List the runs with their command, state, last step, main results, size and age.

    Folders that are damaged, or not runs, are listed with the reason.

    Example: scratchlm runs list
    """

    runs_dir: Path = Path("runs")  # the folder with the runs


@command_line(RunsList)
def main(command: RunsList, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Find the runs and print the table; returns the `--json` keys."""
    runs = find_runs(command.runs_dir)
    _print(runs, command.runs_dir)
    return {"runs_dir": str(command.runs_dir), "runs": [run_record(run) for run in runs]}


def _print(runs: Sequence[FoundRun], runs_dir: Path) -> None:
    if not runs:
        print(f"no runs in {runs_dir}; `scratchlm run` creates one.")
        return
    now_s = time.time()
    rows = [["name", "state", "command", "step", "results", "size", "age"]]
    for run in runs:
        text = _headline(run) if run.is_run else run.problem
        figures = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
        rows.append(
            [
                run.name, run.state, run.what or MISSING, count(run.step), figures,
                file_size(run.size_bytes), _age(now_s - run.changed_at),
            ]
        )  # fmt: skip
    print_columns(rows, right=(3, 5, 6))


def run_record(run: FoundRun) -> dict[str, Any]:
    """A run as plain data, with the main metric of each finished stage."""
    return {
        "name": run.name,
        "path": str(run.path),
        "state": run.state,
        "problem": run.problem,
        "made_by": run.what,
        "stages": list(run.stages),
        "step": run.step,
        "figures": {stage: figures.get(HEADLINES[stage][0]) for stage, figures in run.figures.items()},
        "size_bytes": run.size_bytes,
        "changed_at": run.changed_at,
    }


def _headline(run: FoundRun) -> str:
    parts = []
    for stage, figures in run.figures.items():
        key, words, write = HEADLINES[stage]
        if is_number(figures.get(key)):
            value = write(figures[key])
            parts.append(f"{words} {value}" if stage == "pretrain" else f"{value} {words}")
    return ", ".join(parts) or MISSING


def _age(seconds: float) -> str:
    """Format a time span in one unit.

    Example:
        >>> _age(30), _age(7200), _age(400_000)
        ('30.0 s', '2 h', '5 days')
    """
    if seconds < 3600:
        return duration(max(0.0, seconds))
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
