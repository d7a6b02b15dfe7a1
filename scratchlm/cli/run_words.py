"""A run in a few words, for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scratchlm.reports.formats import MISSING, decimal, duration, is_number, percent
from scratchlm.reports.found_runs import FoundRun

HEADLINES: dict[
    str, tuple[str, str, Callable[[float], str]]
] = {  # of a stage: its main figure, and how to tell it
    "pretrain": ("val_loss", "loss", lambda value: decimal(value, 3)),
    "classify": ("test_accuracy", "classified right", percent),
    "instruct": ("exact_match", "answered exactly", percent),
    "prefer": ("test_accuracy", "preferred", percent),
}


def headline(run: FoundRun) -> str:
    """The main figure of each stage that has ended."""
    parts = []
    for stage, figures in run.figures.items():
        key, words, write = HEADLINES[stage]
        if is_number(figures.get(key)):
            value = write(figures[key])
            parts.append(f"{words} {value}" if stage == "pretrain" else f"{value} {words}")
    return ", ".join(parts) or MISSING


def main_figures(run: FoundRun) -> dict[str, float | None]:
    """The same as plain numbers, by stage."""
    return {stage: figures.get(HEADLINES[stage][0]) for stage, figures in run.figures.items()}


def age(seconds: float) -> str:
    """How long ago, in one unit.

    Example:
        >>> age(30), age(7200), age(400_000)
        ('30.0 s', '2 h', '5 days')
    """
    if seconds < 3600:
        return duration(max(0.0, seconds))
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def in_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; those in `right` end at the same place instead of beginning there.

    Example:
        >>> in_columns([["a", "10"], ["bbb", "9"]], right=[1])
        ['a    10', 'bbb   9']
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
