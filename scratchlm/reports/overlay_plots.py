"""The same measurement of several runs in one plot: each run has its colour and its dashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from scratchlm.reports.curves import (
    MAX_POINTS,
    Plot,
    Series,
    bucket_means,
    column,
    curve_plot,
    every_nth,
    rows_by_step,
)
from scratchlm.reports.formats import count, decimal, is_number, percent

History: TypeAlias = Sequence[Mapping[str, Any]]
COLOURS = ("run1", "run2", "run3", "run4", "run5", "run6")
DASHES: tuple[Any, ...] = (
    "solid",
    (0, (5, 2)),
    (0, (2, 1.5)),
    (0, (7, 2, 1.5, 2)),
    (0, (3, 1)),
    (0, (9, 3)),
)
FAINT_POINTS = 60  # of a training loss behind a validation loss: its trend, not its noise
MAX_WITH_TRAINING = 3  # runs whose training loss is drawn too; of more it would be a thicket


def look_of(position: int) -> tuple[str, Any]:
    """Colour and dashes of the run at that place; no two of the first twelve have both alike.

    Example:
        >>> look_of(0), look_of(6)[0], len({look_of(i) for i in range(12)})
        (('run1', 'solid'), 'run1', 12)
    """
    colour = position % len(COLOURS)
    return COLOURS[colour], DASHES[(colour + position // len(COLOURS)) % len(DASHES)]


def overlay_plot(
    histories: Sequence[tuple[str, History]],
    key: str,
    *,
    name: str,
    title: str,
    is_share: bool = False,
    training_key: str | None = None,
) -> Plot | None:
    """One value of several runs' histories against the step; None when no run has it.

    A run without `key` but with `training_key` is drawn by that. Each run keeps its look, whoever is missing.
    """
    lines: list[Series] = []
    measured: dict[str, list[tuple[float, float]]] = {}
    per_point = 1
    for position, (label, history) in enumerate(histories):
        role, dashes = look_of(position)
        rows = rows_by_step(history)
        found = every_nth([row for row in rows if is_number(row.get(key))])
        trained, n_each = bucket_means(
            [row for row in rows if training_key and is_number(row.get(training_key))],
            training_key or "",
            FAINT_POINTS if found else MAX_POINTS,
        )
        if trained and (len(histories) <= MAX_WITH_TRAINING or not found):
            per_point = max(per_point, n_each)
            lines.append(
                Series(
                    role=role, steps=[s for s, _ in trained], values=[v for _, v in trained], dashes=dashes,
                    words="" if found else f"{label} (training)", width=1.1, alpha=0.4 if found else 0.9,
                    dots=len(trained) == 1, is_faint=bool(found),
                )
            )  # fmt: skip
        if found:
            steps, values = column(found, "step"), column(found, key)
            lines.append(
                Series(
                    role=role, steps=steps, values=values, words=label, dashes=dashes, dots=len(found) <= 20
                )
            )
            measured[label] = list(zip(steps, values))
        elif trained:
            measured[label] = trained
    if not lines:
        return None
    tick, write = (_whole_percent, percent) if is_share else (_short, _three_decimals)
    return curve_plot(name, [], lines, _words(measured, write), title=title, tick=tick, per_point=per_point)


def _whole_percent(share: float) -> str:
    return percent(share, 0)


def _short(value: float) -> str:
    return f"{value:g}"


def _three_decimals(value: float) -> str:
    return decimal(value, 3)


def _words(
    measured: Mapping[str, Sequence[tuple[float, float]]], write: Callable[[float], str]
) -> list[list[Any]]:
    """At each recorded step, what every run had at its own nearest one that is no later than that."""
    steps = sorted({step for points in measured.values() for step, _ in points})
    kept = every_nth([{"step": step} for step in steps])
    words: list[list[Any]] = []
    for step in (float(row["step"]) for row in kept):
        parts = [f"step {count(step)}"]
        for label, points in measured.items():
            earlier = [value for at, value in points if at <= step]
            is_over = step > points[-1][0]
            if earlier:
                parts.append(f"{label} {write(earlier[-1])}{' (ended)' if is_over else ''}")
        words.append([step, " · ".join(parts)])
    return words
