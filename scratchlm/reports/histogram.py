"""A histogram of lengths as SVG in the page's colours, drawn for wide and for narrow screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scratchlm.reports.canvas import WIDE, Colours, Drawing, quiet
from scratchlm.reports.formats import axis_count

LEFT, RIGHT, TOP, BOTTOM = 48, 28, 22, 32  # margins, CSS pixels; at the right stands half of a long number
GAP = 0.08  # of a bin's width, between bars


def histogram_plot(histogram: Mapping[str, Any], *, name: str, context_length: int | None = None) -> Markup:
    """Bars of `data.audit.lengths.histogram`; what does not fit the context has another colour."""

    def draw(axes: Axes, colours: Colours, is_wide: bool) -> Mapping[str, float]:
        _draw_bars(axes, histogram, context_length, colours)
        _dress(axes, histogram, colours, n_ticks=8 if is_wide else 5)
        return {}

    drawing = Drawing(name=name, draw=draw, margins=(LEFT, RIGHT, TOP, BOTTOM))
    return drawing.on_page(WIDE) + drawing.narrow()


def _draw_bars(
    axes: Axes, histogram: Mapping[str, Any], context_length: int | None, colours: Colours
) -> None:
    edges: Sequence[int] = histogram["edges"]
    counts: Sequence[int] = histogram["counts"]
    bin_width: int = histogram["width"]
    fills = [
        colours["train"] if context_length is not None and edge > context_length else colours["val"]
        for edge in edges
    ]
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
    """Quiet axes, as those of the learning curves, with lengths that can be told apart."""
    quiet(axes, colours)
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
