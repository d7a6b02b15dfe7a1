"""Plots of one share against another, both from 0 to 1: calibration, and how well scores rank texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from scratchlm.reports.canvas import NARROW, Colours, Drawing, quiet
from scratchlm.reports.formats import is_number, percent

MARGINS = (44, 14, 26, 38)  # left, right, top, bottom, CSS pixels
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGEST_DOT = 13.0  # points: the bin with most answers


def reliability_plot(bins: Sequence[Mapping[str, Any]] | None) -> Drawing | None:
    """Share that was right against the probability it was said with; a dot is as large as its bin. None without any."""
    filled = [one for one in bins or () if one.get("n") and is_number(one.get("accuracy"))]
    if not filled:
        return None
    most = max(one["n"] for one in filled)
    points = [(float(one["confidence"]), float(one["accuracy"])) for one in filled]
    sizes = [max(3.0, LARGEST_DOT * (one["n"] / most) ** 0.5) for one in filled]
    return _drawing(
        "reliability", points, title="Calibration", x_name="said with", y_name="right", sizes=sizes
    )


def ranking_plot(curves: Sequence[Mapping[str, Any]] | None, kind: str) -> Drawing | None:
    """The ROC (`roc`) or precision-recall curve (`precision_recall`) of a two-class model; None for others."""
    if not curves or len(curves) != 1 or not curves[0].get(kind):
        return None
    points = [(float(x), float(y)) for x, y in curves[0][kind]]
    names = {
        "roc": ("ROC curve", "false alarms", "found"),
        "precision_recall": ("Precision and recall", "found", "right of those called"),
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
        quiet(axes, colours, grid="both", label_size=11, pad=5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks(TICKS, [percent(t, 0) for t in TICKS])
        axes.set_yticks(TICKS, [percent(t, 0) for t in TICKS])
        style: dict[str, Any] = {"fontsize": 11, "color": colours["muted"]}
        axes.annotate(
            x_name, (1, 0), xycoords="axes fraction", xytext=(0, -20), textcoords="offset points", ha="right", va="top",
            **style,
        )  # fmt: skip
        axes.annotate(
            y_name, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", ha="left", va="bottom",
            **style,
        )  # fmt: skip
        return {}

    return Drawing(name=f"unit-{name}", draw=draw, margins=MARGINS, size=NARROW, title=title)
