"""Plot losses and accuracies against the training step, for one run or for several in one plot."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from scratchlm.reports.canvas import WIDE, Colours, Drawing, style_axes, ticks_within
from scratchlm.reports.formats import axis_count, count, decimal, duration, is_number, percent

MAX_POINTS = 300  # more are not visible on a screen
LEFT, RIGHT, TOP = 40, 28, 14  # margins, CSS pixels
LINE_HEIGHT = 15


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot for wide and narrow screens, with the texts that the page shows under the pointer."""

    name: str
    wide: Markup
    narrow: Markup
    drawing: Drawing = field(compare=False)  # for a file
    points: list[list[Any]] = field(default_factory=list)  # [step, text]
    per_point: int = 1  # number of recorded steps averaged in one point of the training line


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a plot, whose role determines its colour."""

    role: str
    points: Sequence[tuple[float, float]]  # step and value
    words: str  # its label in the legend
    dots: bool = False
    width: float = 2.2
    alpha: float = 1.0
    dashes: Any = "solid"
    is_faint: bool = False  # drawn in the background: it does not determine the axis range


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
    """Plot lines against the step; tick labels also show tokens and time where `rows` have them.

    `reference` is drawn as a dashed line; `words` are the texts that the page shows at each step.
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
    wide, narrow = drawing.on_page(WIDE), drawing.on_page()
    return Plot(name=name, wide=wide, narrow=narrow, drawing=drawing, points=words, per_point=per_point)


def rows_by_step(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that have a step, sorted by it."""
    return sorted((row for row in history if is_number(row.get("step"))), key=lambda row: float(row["step"]))


def bucket_means(
    rows: Sequence[Mapping[str, Any]], key: str, limit: int = MAX_POINTS
) -> tuple[list[tuple[float, float]], int]:
    """At most `limit` (step, value) pairs, each the mean of consecutive rows, so that all values are used."""
    per_point = max(1, math.ceil(len(rows) / limit))
    points = []
    for start in range(0, len(rows), per_point):
        part = rows[start : start + per_point]
        steps, values = zip(*points_of(part, key))
        points.append((float(np.mean(steps)), float(np.mean(values))))
    return points, per_point


def even_choice(items: Sequence[Any], limit: int = MAX_POINTS) -> list[Any]:
    """At most `limit` evenly spaced items, with the first and the last.

    Example:
        >>> even_choice(range(9), 3), even_choice("ab", 3)
        ([0, 4, 8], ['a', 'b'])
    """
    if len(items) <= limit:
        return list(items)
    last = len(items) - 1
    return [items[i] for i in sorted({round(k * last / (limit - 1)) for k in range(limit)})]


def points_of(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """The step and one value of each row."""
    return [(float(row["step"]), float(row[key])) for row in rows]


def _draw_lines(
    axes: Axes, lines: Sequence[Series], reference: float | None, colours: Colours, *, is_wide: bool
) -> tuple[float, float]:
    """Draw all lines; return the first and the last step shown."""
    for line in lines:
        axes.plot(
            [step for step, _ in line.points],
            [value for _, value in line.points],
            color=colours[line.role],
            linewidth=line.width,
            linestyle=line.dashes,
            alpha=line.alpha,
            marker="o" if line.dots else "",
            markersize=5 if is_wide else 4,
            solid_capstyle="round",
            clip_on=line.is_faint,
        )
    steps = [step for line in lines for step, _ in line.points]
    low, high = min(steps), max(steps)
    if low == high:
        low, high = low - 1, high + 1
    elif 0 < low <= 0.05 * high:
        low = 0
    values = [value for line in lines if not line.is_faint for _, value in line.points]
    if reference is not None:
        axes.axhline(reference, color=colours["muted"], linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            f"uniform guess {reference:.2f}", (0.5, reference), xycoords=axes.get_yaxis_transform(),
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
    """Style the axes, with step, tokens and time under each tick."""
    style_axes(axes, colours)
    y_ticks = ticks_within(*axes.get_ylim(), n_max=6, integer=False)
    axes.set_yticks(y_ticks, [tick(round(t, 10)) for t in y_ticks])
    x_ticks = ticks_within(low, high, n_max=n_ticks, steps=None)
    axes.set_xticks(x_ticks, [])
    for row, write in enumerate((axis_count, *clocks)):
        for at in x_ticks:  # one annotation per line: SVG centres a single line exactly in any font
            axes.annotate(
                write(at), (at, 0), xycoords=("data", "axes fraction"), xytext=(0, -10 - LINE_HEIGHT * row),
                textcoords="offset points", ha="center", va="top", fontsize=11, color=colours["muted"],
            )  # fmt: skip


def _clocks(rows: Sequence[Mapping[str, Any]]) -> list[Callable[[float], str]]:
    """Further tick labels: tokens and elapsed time at a step, where the history has them."""
    clocks: list[Callable[[float], str]] = []
    for key, write in (("tokens", lambda n: f"{axis_count(n)} tok"), ("elapsed_s", _short_time)):
        known = [row for row in rows if is_number(row.get(key))]
        if len(known) >= 2:
            clocks.append(_interpolated([(0.0, 0.0), *points_of(known, key)], write))
    return clocks


def _interpolated(
    points: Sequence[tuple[float, float]], write: Callable[[float], str]
) -> Callable[[float], str]:
    steps, values = zip(*points)
    return lambda step: write(float(np.interp(step, steps, values)))


def _short_time(seconds: float) -> str:
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {word}"
    return f"{seconds:.0f} s"


Words: TypeAlias = tuple[tuple[str, Callable[[float], str]], ...]  # key of the history, format of its value
LOSSES: Words = (
    ("train_loss", lambda loss: f"training loss {decimal(loss)}"),
    ("val_loss", lambda loss: f"validation loss {decimal(loss)}"),
)
ACCURACY: Words = (("val_accuracy", lambda share: f"validation accuracy {percent(share)}"),)
SPENT: Words = (("tokens", lambda n: f"{axis_count(n)} tokens"), ("elapsed_s", duration))


def loss_plot(
    history: Sequence[Mapping[str, Any]], *, name: str, uniform_loss: float | None = None
) -> Plot | None:
    """Training and validation loss against the step; None when nothing was recorded.

    `uniform_loss` is the loss of uniform predictions, ln(V); it is drawn when training started near it.
    Units: nats per target.
    """
    rows = rows_by_step(history)
    train_rows = [row for row in rows if is_number(row.get("train_loss"))]
    train, per_point = bucket_means(train_rows, "train_loss")
    val = even_choice([row for row in rows if is_number(row.get("val_loss"))])
    if not train and not val:
        return None
    lines = [
        Series(
            role="train", points=train, words="training loss", dots=len(train) == 1, width=1.3, alpha=0.75
        ),
        _validation_line(val, "val_loss", "validation loss"),
    ]
    first = train[0][1] if train else float(val[0]["val_loss"])
    reference = uniform_loss if uniform_loss is not None and 0.6 * uniform_loss <= first else None
    shown = {row["step"]: row for row in (*even_choice(rows), *val)}
    words = [[step, _describe(shown[step], LOSSES)] for step in sorted(shown)]
    return curve_plot(
        name, rows, lines, words, title="Loss, nats per target", reference=reference, per_point=per_point
    )


def accuracy_plot(history: Sequence[Mapping[str, Any]], *, name: str) -> Plot | None:
    """Validation accuracy against the step; None when none was recorded."""
    rows = even_choice([row for row in rows_by_step(history) if is_number(row.get("val_accuracy"))])
    if not rows:
        return None
    line = _validation_line(rows, "val_accuracy", "validation accuracy")
    words = [[row["step"], _describe(row, ACCURACY)] for row in rows]
    return curve_plot(
        name, rows, [line], words, title="Validation accuracy", tick=lambda value: percent(value, 0)
    )


def _validation_line(rows: Sequence[Mapping[str, Any]], key: str, words: str) -> Series:
    return Series(role="val", points=points_of(rows, key), words=words, dots=len(rows) <= 40)


def _describe(row: Mapping[str, Any], measured: Words) -> str:
    """The values at one step as text, for the line under the plot."""
    parts = [f"step {count(row['step'])}"]
    parts += [write(row[key]) for key, write in (*measured, *SPENT) if is_number(row.get(key))]
    return " · ".join(parts)


History: TypeAlias = Sequence[Mapping[str, Any]]
COLOURS = ("run1", "run2", "run3", "run4", "run5", "run6")
DASHES: tuple[Any, ...] = (
    *("solid", (0, (5, 2)), (0, (2, 1.5))),
    *((0, (7, 2, 1.5, 2)), (0, (3, 1)), (0, (9, 3))),
)
FAINT_POINTS = 60  # number of points of a training loss in the background, which shows only the trend
MAX_WITH_TRAINING = 3  # runs whose training loss is drawn too; with more the plot would be crowded


def look_of(position: int) -> tuple[str, Any]:
    """Colour and dashes of a run by its index; the first twelve are all different.

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
    """Plot one value of several runs' histories against the step; None when no run has it.

    For a run without `key`, `training_key` is drawn. Each run keeps its line style when others are missing.
    """
    lines: list[Series] = []
    measured: dict[str, list[tuple[float, float]]] = {}
    per_point = 1
    for position, (label, history) in enumerate(histories):
        role, dashes = look_of(position)
        rows = rows_by_step(history)
        found = even_choice([row for row in rows if is_number(row.get(key))])
        trained, n_each = bucket_means(
            [row for row in rows if training_key and is_number(row.get(training_key))],
            training_key or "",
            FAINT_POINTS if found else MAX_POINTS,
        )
        if trained and (len(histories) <= MAX_WITH_TRAINING or not found):
            per_point = max(per_point, n_each)
            lines.append(
                Series(
                    role=role, points=trained, dashes=dashes, words="" if found else f"{label} (training)",
                    width=1.1, alpha=0.4 if found else 0.9, dots=len(trained) == 1, is_faint=bool(found),
                )
            )  # fmt: skip
        if found:
            measured[label] = points = points_of(found, key)
            lines.append(Series(role=role, points=points, words=label, dashes=dashes, dots=len(found) <= 20))
        elif trained:
            measured[label] = trained
    if not lines:
        return None
    words = _words(measured, percent if is_share else lambda value: decimal(value, 3))
    tick = (lambda share: percent(share, 0)) if is_share else "{:g}".format
    return curve_plot(name, [], lines, words, title=title, tick=tick, per_point=per_point)


def _words(
    measured: Mapping[str, Sequence[tuple[float, float]]], write: Callable[[float], str]
) -> list[list[Any]]:
    """The text for each recorded step: every run's value at its last step up to this one."""
    words: list[list[Any]] = []
    for step in even_choice(sorted({step for points in measured.values() for step, _ in points})):
        parts = [f"step {count(step)}"]
        for label, points in measured.items():
            earlier = [value for at, value in points if at <= step]
            is_over = step > points[-1][0]
            if earlier:
                parts.append(f"{label} {write(earlier[-1])}{' (ended)' if is_over else ''}")
        words.append([step, " · ".join(parts)])
    return words
