"""How a judge's scores are spread: one histogram a run, with the mean and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scratchlm.reports.canvas import NARROW, Colours, Drawing, quiet
from scratchlm.reports.formats import axis_count, decimal

MARGINS = (40, 16, 24, 30)  # left, right, top, bottom, CSS pixels
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
    """Bars of how many answers got which score; a line marks the mean, a band its 95 % interval; None without any.

    tallest: the highest bar of all plots that stand beside this one, so that equal bars are equally high.
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
        quiet(axes, colours, label_size=11, pad=5)
        axes.set_xlim(*scale)
        axes.set_ylim(0, 1.06 * max(*counts, tallest or 0))
        top = axes.get_ylim()[1]
        locator = MaxNLocator(nbins=4, steps=[1, 2, 5, 10], integer=True)
        ticks = [tick for tick in locator.tick_values(0, top) if 0 <= tick <= top]
        axes.set_yticks(ticks, [axis_count(tick) for tick in ticks])
        places = [edges[0], edges[N_BINS // 2], edges[-1]]
        axes.set_xticks(places, [f"{place:g}" for place in places])
        return {}

    return Drawing(name=name, draw=draw, margins=MARGINS, size=NARROW, title=title)


def tallest_bar(scores: Sequence[float], scale: tuple[float, float]) -> int:
    """How many answers the highest bar of these scores stands for; 0 without any."""
    return int(_histogram(scores, scale)[0].max())


def _histogram(
    scores: Sequence[float], scale: tuple[float, float]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return np.histogram(np.clip(scores, *scale), bins=N_BINS, range=scale)
