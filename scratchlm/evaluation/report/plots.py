"""Learning curves: what a loss or an accuracy did while training went on, as SVG in the page's colours."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scratchlm.evaluation.report.formats import axis_count, count, decimal, duration, is_number, percent
from scratchlm.evaluation.report.svg import ROLES, page_svg

MAX_POINTS = 300  # more than a screen can show
WIDE, NARROW = (760, 330), (350, 270)  # CSS pixels: a desktop column, and half a column or a phone
LEFT, RIGHT, TOP = 40, 28, 14  # margins, CSS pixels
LINE_HEIGHT = 15

Words: TypeAlias = tuple[
    tuple[str, Callable[[float], str]], ...
]  # a key of the history, and how to tell its value
LOSSES: Words = (
    ("train_loss", lambda loss: f"training loss {decimal(loss)}"),
    ("val_loss", lambda loss: f"validation loss {decimal(loss)}"),
)
ACCURACY: Words = (("val_accuracy", lambda share: f"validation accuracy {percent(share)}"),)
SPENT: Words = (("tokens", lambda n: f"{axis_count(n)} tokens"), ("elapsed_s", duration))


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One curve, drawn for wide and for narrow screens, with the words for a pointer that moves over it."""

    name: str
    wide: Markup
    narrow: Markup
    points: list[list[Any]] = field(default_factory=list)  # [step, "what was measured there"]
    per_point: int = 1  # recorded steps that one point of the training line is the mean of


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a plot: its role gives its colour."""

    role: str
    steps: Sequence[float]
    values: Sequence[float]
    dots: bool = False


def loss_plot(
    history: Sequence[Mapping[str, Any]], *, name: str, blind_loss: float | None = None
) -> Plot | None:
    """Training and validation loss against the step; None when nothing was recorded.

    `blind_loss` is the loss of a model that knows nothing, ln(V): drawn when training began near it.
    Units: nats per target.
    """
    rows = [row for row in history if is_number(row.get("step"))]
    rows.sort(key=lambda row: row["step"])
    train_rows = [row for row in rows if is_number(row.get("train_loss"))]
    train, per_point = _bucket_means(train_rows, "train_loss")
    val = _every_nth([row for row in rows if is_number(row.get("val_loss"))])
    if not train and not val:
        return None
    lines = [
        Series(role="train", steps=[s for s, _ in train], values=[v for _, v in train], dots=len(train) == 1),
        Series(role="val", steps=_column(val, "step"), values=_column(val, "val_loss"), dots=len(val) <= 40),
    ]
    first = train[0][1] if train else float(val[0]["val_loss"])
    reference = blind_loss if blind_loss is not None and 0.6 * blind_loss <= first else None
    words = [[row["step"], _describe(row, LOSSES)] for row in _merge(_every_nth(rows), val)]
    return _plot(name, rows, lines, words, reference=reference, per_point=per_point)


def accuracy_plot(history: Sequence[Mapping[str, Any]], *, name: str) -> Plot | None:
    """Validation accuracy against the step; None when none was recorded."""
    rows = [row for row in history if is_number(row.get("step")) and is_number(row.get("val_accuracy"))]
    rows = _every_nth(sorted(rows, key=lambda row: row["step"]))
    if not rows:
        return None
    line = Series(
        role="val", steps=_column(rows, "step"), values=_column(rows, "val_accuracy"), dots=len(rows) <= 40
    )
    words = [[row["step"], _describe(row, ACCURACY)] for row in rows]
    return _plot(name, rows, [line], words, tick=lambda value: percent(value, 0))


def _plot(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Series],
    words: list[list[Any]],
    *,
    reference: float | None = None,
    tick: Callable[[float], str] = lambda value: f"{value:g}",
    per_point: int = 1,
) -> Plot:
    draw = [_draw(f"{name}-{size[0]}", size, rows, lines, reference, tick) for size in (WIDE, NARROW)]
    return Plot(name=name, wide=draw[0], narrow=draw[1], points=words, per_point=per_point)


def _draw(
    name: str,
    size: tuple[int, int],
    rows: Sequence[Mapping[str, Any]],
    lines: Sequence[Series],
    reference: float | None,
    tick: Callable[[float], str],
) -> Markup:
    width, height = size
    clocks = _clocks(rows)
    bottom = 12 + LINE_HEIGHT * (1 + len(clocks))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the report
        # Text stays text, and ids come from the name instead of from chance: same data, same bytes.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 12})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # 72 dpi: one unit is one CSS pixel
        box = (
            LEFT / width,
            bottom / height,
            (width - LEFT - RIGHT) / width,
            (height - bottom - TOP) / height,
        )
        axes = figure.add_axes(box)
        low, high = _draw_lines(axes, lines, reference, is_wide=width == WIDE[0])
        _dress(axes, low, high, n_ticks=6 if width == WIDE[0] else 4, tick=tick, clocks=clocks)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    frame = {
        "left": LEFT,
        "right": width - RIGHT,
        "top": TOP,
        "bottom": height - bottom,
        "min": low,
        "max": high,
    }
    attributes = "".join(f' data-{key}="{value:g}"' for key, value in frame.items())
    css_class = "plot-wide" if size == WIDE else "plot-narrow"
    return Markup(page_svg(file.getvalue(), name=name, css_class=css_class, attributes=attributes))  # noqa: S704


def _draw_lines(
    axes: Axes, lines: Sequence[Series], reference: float | None, *, is_wide: bool
) -> tuple[float, float]:
    """Draw every line; give back the first and the last step shown."""
    for line in lines:
        axes.plot(
            line.steps,
            line.values,
            color=ROLES[line.role],
            linewidth=2.2 if line.role == "val" else 1.3,
            alpha=1.0 if line.role == "val" else 0.75,
            marker="o" if line.dots else "",
            markersize=5 if is_wide else 4,
            solid_capstyle="round",
            clip_on=False,
        )
    steps = [step for line in lines for step in line.steps]
    low, high = min(steps), max(steps)
    if low == high:
        low, high = low - 1, high + 1
    elif 0 < low <= 0.05 * high:
        low = 0
    values = [value for line in lines for value in line.values]
    if reference is not None:
        axes.axhline(reference, color=ROLES["muted"], linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            f"blind guess {reference:.2f}", (0.5, reference), xycoords=axes.get_yaxis_transform(),
            xytext=(0, 3), textcoords="offset points",
            ha="center", va="bottom", fontsize=11, color=ROLES["muted"],
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
    *,
    n_ticks: int,
    tick: Callable[[float], str],
    clocks: Sequence[Callable[[float], str]],
) -> None:
    """Quiet axes: pale horizontal lines, no frame, and under each step the tokens and the time it took."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, axis="y", color=ROLES["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=12, labelcolor=ROLES["muted"], pad=7)
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
                textcoords="offset points", ha="center", va="top", fontsize=11, color=ROLES["muted"],
            )  # fmt: skip


def _clocks(rows: Sequence[Mapping[str, Any]]) -> list[Callable[[float], str]]:
    """What can stand under a step: tokens read so far and time gone by, where the history holds them."""
    clocks: list[Callable[[float], str]] = []
    for key, write in (("tokens", lambda n: f"{axis_count(n)} tok"), ("elapsed_s", _short_time)):
        known = [row for row in rows if is_number(row.get(key))]
        if len(known) >= 2:
            steps, values = [0.0, *_column(known, "step")], [0.0, *_column(known, key)]  # all begins at 0
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


def _describe(row: Mapping[str, Any], measured: Words) -> str:
    """One moment of training in words, for the line under the plot."""
    parts = [f"step {count(row['step'])}"]
    parts += [write(row[key]) for key, write in (*measured, *SPENT) if is_number(row.get(key))]
    return " · ".join(parts)


def _bucket_means(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[tuple[float, float]], int]:
    """At most MAX_POINTS (step, value) pairs, each a mean of neighbours: a long history stays honest."""
    per_point = max(1, math.ceil(len(rows) / MAX_POINTS))
    points = []
    for start in range(0, len(rows), per_point):
        part = rows[start : start + per_point]
        points.append((float(np.mean(_column(part, "step"))), float(np.mean(_column(part, key)))))
    return points, per_point


def _every_nth(rows: Sequence[Mapping[str, Any]], most: int = MAX_POINTS) -> list[Mapping[str, Any]]:
    """At most `most` rows, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    kept = np.unique(np.linspace(0, len(rows) - 1, most).round().astype(int))
    return [rows[int(index)] for index in kept]


def _merge(rows: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Both lists without repeats, in order of steps; where a step stands in both, the second list wins."""
    by_step = {row["step"]: row for row in (*rows, *more)}
    return [by_step[step] for step in sorted(by_step)]


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows]
