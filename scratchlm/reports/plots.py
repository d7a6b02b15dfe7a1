"""Plot histograms of lengths and scores, calibration, ROC and precision-recall curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes

from scratchlm.reports.canvas import NARROW, WIDE, Colours, Drawing, style_axes, ticks_within
from scratchlm.reports.formats import axis_count, decimal, is_number, percent

LEFT, RIGHT, TOP, BOTTOM = 48, 28, 22, 32  # margins, CSS pixels; right: half of a long number
GAP = 0.08  # of a bin's width, between bars


def histogram_plot(histogram: Mapping[str, Any], *, name: str, context_length: int | None = None) -> Markup:
    """The length histogram of a data audit; lengths beyond the context have another colour."""

    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:
        _draw_bars(axes, histogram, context_length, colours)
        _dress(axes, histogram, colours, n_ticks=8 if is_wide else 5)
        return {}

    drawing = Drawing(name=name, draw=draw, margins=(LEFT, RIGHT, TOP, BOTTOM))
    return drawing.on_page(WIDE) + drawing.on_page()


def _draw_bars(
    axes: Axes, histogram: Mapping[str, Any], context_length: int | None, colours: Colours
) -> None:
    edges: Sequence[int] = histogram["edges"]
    counts: Sequence[int] = histogram["counts"]
    bin_width: int = histogram["width"]
    context = math.inf if context_length is None else context_length
    fills = [colours["train" if edge > context else "val"] for edge in edges]
    axes.bar(edges, counts, width=bin_width * (1 - GAP), align="edge", color=fills, linewidth=0)
    end = edges[-1] + bin_width
    first = next((edge for edge, n in zip(edges, counts) if n), 0)
    axes.set_xlim(0 if first <= 0.3 * end else first - bin_width, end)
    axes.set_ylim(0, 1.06 * max(counts))
    if context_length is not None and axes.get_xlim()[0] < context_length <= end:
        axes.axvline(context_length, color=colours["train"], linewidth=1.5, linestyle=(0, (4, 4)))
        is_left = context_length < 0.6 * end
        axes.annotate(
            f"context {context_length:,}", (context_length, 1), xycoords=("data", "axes fraction"),
            xytext=(5 if is_left else -5, 6), textcoords="offset points",
            ha="left" if is_left else "right", va="bottom", fontsize=11, color=colours["train"],
        )  # fmt: skip


def _dress(axes: Axes, histogram: Mapping[str, Any], colours: Colours, *, n_ticks: int) -> None:
    """Style the axes, with tick labels that do not overlap."""
    style_axes(axes, colours)
    y_ticks = ticks_within(0, axes.get_ylim()[1], n_max=5)
    axes.set_yticks(y_ticks, [axis_count(t) for t in y_ticks])
    low, high = axes.get_xlim()
    last = histogram["edges"][-1]
    open_at = last if histogram["is_open"] else None
    end = math.inf if open_at is None else open_at - (high - low) / 12
    x_ticks = [t for t in ticks_within(low, high, n_max=n_ticks) if t < end]
    labels = [axis_count(t) for t in x_ticks]
    if open_at is not None:  # the last bar counts all greater lengths
        x_ticks, labels = [*x_ticks, open_at + histogram["width"] / 2], [*labels, f"{axis_count(open_at)}+"]
    axes.set_xticks(x_ticks, labels)


MARGINS = (44, 14, 26, 38)  # left, right, top, bottom, CSS pixels
N_BINS = 10


def score_plot(
    scores: Sequence[float],
    *,
    name: str,
    role: str,
    title: str = "",
    scale: tuple[float, float] = (0.0, 100.0),
    interval: tuple[float, float] | None = None,
    tallest: int | None = None,
) -> Drawing | None:
    """Histogram of a judge's scores; a line marks the mean, a band its 95 % interval; None without scores.

    tallest: the highest bar of all plots in the same row, so that they have the same scale.
    """
    if not scores:
        return None
    counts, edges = _histogram(scores, scale)
    mean = float(np.mean(scores))
    place = (mean - scale[0]) / (scale[1] - scale[0])

    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:  # noqa: ARG001
        width = edges[1] - edges[0]
        axes.bar(edges[:-1], counts, width=0.92 * width, align="edge", color=colours[role], linewidth=0)
        if interval is not None:
            axes.axvspan(*interval, color=colours["ink"], alpha=0.14, linewidth=0)
        axes.axvline(mean, color=colours["ink"], linewidth=1.5)
        axes.annotate(
            f"mean {decimal(mean, 1 if scale[1] > 10 else 2)}", (mean, 1), xycoords=("data", "axes fraction"),
            xytext=(0, 6), textcoords="offset points", va="bottom", fontsize=11, color=colours["ink"],
            ha="left" if place < 0.2 else "right" if place > 0.8 else "center",
        )  # fmt: skip
        style_axes(axes, colours, label_size=11, pad=5)
        axes.set_xlim(*scale)
        axes.set_ylim(0, 1.06 * max(*counts, tallest or 0))
        ticks = ticks_within(0, axes.get_ylim()[1], n_max=4)
        axes.set_yticks(ticks, [axis_count(tick) for tick in ticks])
        places = [edges[0], edges[N_BINS // 2], edges[-1]]
        axes.set_xticks(places, [f"{place:g}" for place in places])
        return {}

    return Drawing(name=name, draw=draw, margins=MARGINS, size=NARROW, title=title)


def tallest_bar(scores: Sequence[float], scale: tuple[float, float]) -> int:
    """The number of answers in the highest bar; 0 without any."""
    return int(_histogram(scores, scale)[0].max())


def _histogram(
    scores: Sequence[float], scale: tuple[float, float]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.histogram(np.clip(scores, *scale), bins=N_BINS, range=scale)


TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGEST_DOT = 13.0  # points; size of the dot for the bin with most answers


def reliability_plot(bins: Sequence[Mapping[str, Any]] | None) -> Drawing | None:
    """Calibration: accuracy against confidence, with dots sized by bin; None without predictions."""
    filled = [one for one in bins or () if one.get("n") and is_number(one.get("accuracy"))]
    if not filled:
        return None
    most = max(one["n"] for one in filled)
    points = [(float(one["confidence"]), float(one["accuracy"])) for one in filled]
    sizes = [max(3.0, LARGEST_DOT * (one["n"] / most) ** 0.5) for one in filled]
    return _drawing(
        "reliability", points, title="Calibration", x_name="confidence", y_name="accuracy", sizes=sizes
    )


def ranking_plot(curves: Sequence[Mapping[str, Any]] | None, kind: str) -> Drawing | None:
    """The ROC (`roc`) or precision-recall curve (`precision_recall`) of a two-class model; None for others."""
    if not curves or len(curves) != 1 or not curves[0].get(kind):
        return None
    points = [(float(x), float(y)) for x, y in curves[0][kind]]
    names = {
        "roc": ("ROC curve", "false positive rate", "true positive rate"),
        "precision_recall": ("Precision and recall", "recall", "precision"),
    }
    title, x_name, y_name = names[kind]
    return _drawing(
        kind, points, title=title, x_name=x_name, y_name=y_name, is_step=True, has_diagonal=kind == "roc"
    )


def _drawing(
    name: str,
    points: Sequence[tuple[float, float]],
    *,
    title: str,
    x_name: str,
    y_name: str,
    sizes: Sequence[float] = (),
    is_step: bool = False,
    has_diagonal: bool = True,
) -> Drawing:
    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:  # noqa: ARG001
        if has_diagonal:
            axes.plot([0, 1], [0, 1], color=colours["muted"], linewidth=1, linestyle=(0, (4, 4)))
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(
            xs, ys, color=colours["val"], linewidth=2.2 if is_step else 1.3, clip_on=False,
            drawstyle="steps-post" if is_step else "default", solid_capstyle="round",
        )  # fmt: skip
        for x, y, size in zip(xs, ys, sizes):
            axes.plot(
                [x], [y], marker="o", markersize=size, color=colours["val"], clip_on=False, linestyle=""
            )
        style_axes(axes, colours, grid="both", label_size=11, pad=5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(TICKS, [percent(t, 0) for t in TICKS])
        axes.set_yticks(TICKS, [percent(t, 0) for t in TICKS])
        style: dict[str, Any] = {"fontsize": 11, "color": colours["muted"]}
        style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate(x_name, (1, 0), xytext=(0, -20), ha="right", va="top", **style)
        axes.annotate(y_name, (0, 1), xytext=(0, 9), ha="left", va="bottom", **style)
        return {}

    return Drawing(name=f"unit-{name}", draw=draw, margins=MARGINS, size=NARROW, title=title)
