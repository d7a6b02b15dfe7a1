"""A histogram of lengths as SVG in the page's colours, drawn for wide and for narrow screens."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scratchlm.evaluation.report.formats import axis_count
from scratchlm.evaluation.report.plots import NARROW, WIDE
from scratchlm.evaluation.report.svg import ROLES, page_svg

LEFT, RIGHT, TOP, BOTTOM = 48, 28, 22, 32  # margins, CSS pixels; at the right stands half of a long number
GAP = 0.08  # of a bin's width, between bars


def histogram_plot(histogram: Mapping[str, Any], *, name: str, context_length: int | None = None) -> Markup:
    """Bars of `data.xray.lengths.histogram`; what does not fit the context has another colour."""
    drawings = [
        _draw(f"{name}-{size[0]}", size, histogram, context_length, css_class)
        for size, css_class in ((WIDE, "plot-wide"), (NARROW, "plot-narrow"))
    ]
    return Markup("").join(drawings)


def _draw(
    name: str,
    size: tuple[int, int],
    histogram: Mapping[str, Any],
    context_length: int | None,
    css_class: str,
) -> Markup:
    width, height = size
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the page
        # Text stays text, and ids come from the name instead of from chance: same data, same bytes.
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 12})
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)  # 72 dpi: one unit is one CSS pixel
        axes = figure.add_axes(
            (
                LEFT / width,
                BOTTOM / height,
                (width - LEFT - RIGHT) / width,
                (height - BOTTOM - TOP) / height,
            )
        )
        _draw_bars(axes, histogram, context_length)
        _dress(axes, histogram, n_ticks=8 if size == WIDE else 5)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Markup(page_svg(file.getvalue(), name=name, css_class=css_class))  # noqa: S704


def _draw_bars(axes: Axes, histogram: Mapping[str, Any], context_length: int | None) -> None:
    edges: Sequence[int] = histogram["edges"]
    counts: Sequence[int] = histogram["counts"]
    bin_width: int = histogram["width"]
    colours = [
        ROLES["train"] if context_length is not None and edge > context_length else ROLES["val"]
        for edge in edges
    ]
    axes.bar(edges, counts, width=bin_width * (1 - GAP), align="edge", color=colours, linewidth=0)
    end = edges[-1] + bin_width
    first = next((edge for edge, n in zip(edges, counts) if n), 0)
    axes.set_xlim(0 if first <= 0.3 * end else first - bin_width, end)
    axes.set_ylim(0, 1.06 * max(counts))
    if context_length is not None and axes.get_xlim()[0] < context_length <= end:
        axes.axvline(context_length, color=ROLES["train"], linewidth=1.5, linestyle=(0, (4, 4)))
        is_left = context_length < 0.6 * end
        axes.annotate(
            f"context {context_length:,}", (context_length, 1), xycoords=("data", "axes fraction"),
            xytext=(5 if is_left else -5, 6), textcoords="offset points",
            ha="left" if is_left else "right", va="bottom", fontsize=11, color=ROLES["train"],
        )  # fmt: skip


def _dress(axes: Axes, histogram: Mapping[str, Any], *, n_ticks: int) -> None:
    """Quiet axes, as those of the learning curves: pale horizontal lines, no frame."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(visible=True, axis="y", color=ROLES["grid"], linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=12, labelcolor=ROLES["muted"], pad=7)
    top = axes.get_ylim()[1]
    y_ticks = [
        t
        for t in MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True).tick_values(0, top)
        if 0 <= t <= top
    ]
    axes.set_yticks(y_ticks, [axis_count(t) for t in y_ticks])
    low, high = axes.get_xlim()
    last = histogram["edges"][-1]
    open_at = last if histogram["is_open"] else None
    x_ticks = [
        t
        for t in MaxNLocator(nbins=n_ticks, steps=[1, 2, 5, 10], integer=True).tick_values(low, high)
        if low <= t <= high and (open_at is None or t < open_at - (high - low) / 12)
    ]
    labels = [axis_count(t) for t in x_ticks]
    if open_at is not None:  # the last bar holds all that is longer still
        x_ticks, labels = [*x_ticks, open_at + histogram["width"] / 2], [*labels, f"{axis_count(open_at)}+"]
    axes.set_xticks(x_ticks, labels)
