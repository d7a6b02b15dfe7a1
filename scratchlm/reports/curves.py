"""Lines against the step of training: how a history becomes points, and points a plot."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scratchlm.reports.canvas import WIDE, Colours, Drawing, quiet
from scratchlm.reports.formats import axis_count, is_number

MAX_POINTS = 300  # more than a screen can show
LEFT, RIGHT, TOP = 40, 28, 14  # margins, CSS pixels
LINE_HEIGHT = 15


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One curve, drawn for wide and for narrow screens, with the words for a pointer that moves over it."""

    name: str
    wide: Markup
    narrow: Markup
    drawing: Drawing = field(compare=False)  # for a file
    points: list[list[Any]] = field(default_factory=list)  # [step, "what was measured there"]
    per_point: int = 1  # recorded steps that one point of the training line is the mean of


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a plot: its role gives its colour."""

    role: str
    steps: Sequence[float]
    values: Sequence[float]
    words: str  # its name in the key
    dots: bool = False
    width: float = 2.2
    alpha: float = 1.0
    dashes: Any = "solid"
    is_faint: bool = False  # drawn where there is room for it: it does not decide how far the axis goes


def curve_plot(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Series],
    words: list[list[Any]],
    *,
    title: str,
    reference: float | None = None,
    tick: Callable[[float], str] = lambda value: f"{value:g}",
    per_point: int = 1,
) -> Plot:
    """Lines against the step; under each step stand the tokens and the time of `rows`, where they hold them.

    `reference` is a value to compare with, drawn as a dashed line; `words` is what a pointer is told at a step.
    """
    clocks = _clocks(rows)

    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:
        low, high = _draw_lines(axes, lines, reference, colours, is_wide=is_wide)
        _dress(axes, low, high, colours, n_ticks=6 if is_wide else 4, tick=tick, clocks=clocks)
        return {"min": low, "max": high}

    drawing = Drawing(
        name=name,
        draw=draw,
        margins=(LEFT, RIGHT, TOP, 12 + LINE_HEIGHT * (1 + len(clocks))),
        title=title,
        keys=[(line.role, line.words, line.dashes) for line in lines if line.words],
    )
    wide, narrow = drawing.on_page(WIDE), drawing.narrow()
    return Plot(name=name, wide=wide, narrow=narrow, drawing=drawing, points=words, per_point=per_point)


def rows_by_step(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that have a step, in its order."""
    return sorted((row for row in history if is_number(row.get("step"))), key=lambda row: float(row["step"]))


def bucket_means(
    rows: Sequence[Mapping[str, Any]], key: str, most: int = MAX_POINTS
) -> tuple[list[tuple[float, float]], int]:
    """At most `most` (step, value) pairs, each a mean of neighbours: a long history stays honest."""
    per_point = max(1, math.ceil(len(rows) / most))
    points = []
    for start in range(0, len(rows), per_point):
        part = rows[start : start + per_point]
        points.append((float(np.mean(column(part, "step"))), float(np.mean(column(part, key)))))
    return points, per_point


def every_nth(rows: Sequence[Mapping[str, Any]], most: int = MAX_POINTS) -> list[Mapping[str, Any]]:
    """At most `most` rows, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    kept = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    return [rows[int(index)] for index in kept]


def column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """One value of each row."""
    return [float(row[key]) for row in rows]


def _draw_lines(
    axes: Axes, lines: Sequence[Series], reference: float | None, colours: Colours, *, is_wide: bool
) -> tuple[float, float]:
    """Draw every line; give back the first and the last step shown."""
    for line in lines:
        axes.plot(
            line.steps,
            line.values,
            color=colours[line.role],
            linewidth=line.width,
            linestyle=line.dashes,
            alpha=line.alpha,
            marker="o" if line.dots else "",
            markersize=5 if is_wide else 4,
            solid_capstyle="round",
            clip_on=line.is_faint,
        )
    steps = [step for line in lines for step in line.steps]
    low, high = min(steps), max(steps)
    if low == high:
        low, high = low - 1, high + 1
    elif 0 < low <= 0.05 * high:
        low = 0
    values = [value for line in lines if not line.is_faint for value in line.values]
    if reference is not None:
        axes.axhline(reference, color=colours["muted"], linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            f"blind guess {reference:.2f}", (0.5, reference), xycoords=axes.get_yaxis_transform(),
            xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize=11, color=colours["muted"],
        )  # fmt: skip
        values.append(reference)
    margin = 0.08 * (max(values) - min(values)) or 0.1 * abs(values[0]) or 0.1
    axes.set_ylim(min(values) - margin, max(values) + margin * (1.6 if reference is not None else 1))
    axes.set_xlim(low, high)
    return float(low), float(high)


def _dress(
    axes: Axes,
    low: float,
    high: float,
    colours: Colours,
    *,
    n_ticks: int,
    tick: Callable[[float], str],
    clocks: Sequence[Callable[[float], str]],
) -> None:
    """Quiet axes, and under each step the tokens and the time it took."""
    quiet(axes, colours)
    bounds = axes.get_ylim()
    y_ticks = [
        t
        for t in MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(*bounds)
        if bounds[0] <= t <= bounds[1]
    ]
    axes.set_yticks(y_ticks, [tick(round(t, 10)) for t in y_ticks])
    x_ticks = [t for t in MaxNLocator(nbins=n_ticks, integer=True).tick_values(low, high) if low <= t <= high]
    axes.set_xticks(x_ticks, [])
    for row, write in enumerate((axis_count, *clocks)):
        for (
            at
        ) in x_ticks:  # each line by itself: SVG centres a single line exactly, whatever the reader's font
            axes.annotate(
                write(at), (at, 0), xycoords=("data", "axes fraction"), xytext=(0, -10 - LINE_HEIGHT * row),
                textcoords="offset points", ha="center", va="top", fontsize=11, color=colours["muted"],
            )  # fmt: skip


def _clocks(rows: Sequence[Mapping[str, Any]]) -> list[Callable[[float], str]]:
    """What can stand under a step: tokens read so far and time gone by, where the history holds them."""
    clocks: list[Callable[[float], str]] = []
    for key, write in (("tokens", lambda n: f"{axis_count(n)} tok"), ("elapsed_s", _short_time)):
        known = [row for row in rows if is_number(row.get(key))]
        if len(known) >= 2:
            steps, values = [0.0, *column(known, "step")], [0.0, *column(known, key)]  # all begins at 0
            clocks.append(_interpolated(steps, values, write))
    return clocks


def _interpolated(
    steps: list[float], values: list[float], write: Callable[[float], str]
) -> Callable[[float], str]:
    return lambda step: write(float(np.interp(step, steps, values)))


def _short_time(seconds: float) -> str:
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {word}"
    return f"{seconds:.0f} s"
