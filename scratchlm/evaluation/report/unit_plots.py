"""Plots of one share against another, both from 0 to 1: calibration, and how well scores rank texts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from scratchlm.evaluation.report.formats import is_number, percent
from scratchlm.evaluation.report.svg import ROLES, page_svg

WIDTH, HEIGHT = 350, 270  # CSS pixels: half a column, or a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 26, 38
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LARGEST_DOT = 13.0  # points: the bin with most answers


def reliability_plot(bins: Sequence[Mapping[str, Any]] | None) -> Markup | None:
    """Share that was right against the probability it was said with; a dot is as large as its bin. None without any."""
    filled = [one for one in bins or () if one.get("n") and is_number(one.get("accuracy"))]
    if not filled:
        return None
    most = max(one["n"] for one in filled)
    points = [(float(one["confidence"]), float(one["accuracy"])) for one in filled]
    sizes = [max(3.0, LARGEST_DOT * (one["n"] / most) ** 0.5) for one in filled]
    return _draw("reliability", points, x_name="said with", y_name="right", sizes=sizes)


def ranking_plot(curves: Sequence[Mapping[str, Any]] | None, kind: str) -> Markup | None:
    """The ROC (`roc`) or precision-recall curve (`precision_recall`) of a two-class model; None for others."""
    if not curves or len(curves) != 1 or not curves[0].get(kind):
        return None
    points = [(float(x), float(y)) for x, y in curves[0][kind]]
    names = {"roc": ("false alarms", "found"), "precision_recall": ("found", "right of those called")}
    x_name, y_name = names[kind]
    return _draw(kind, points, x_name=x_name, y_name=y_name, is_step=True, has_diagonal=kind == "roc")


def _draw(
    name: str,
    points: Sequence[tuple[float, float]],
    *,
    x_name: str,
    y_name: str,
    sizes: Sequence[float] = (),
    is_step: bool = False,
    has_diagonal: bool = True,
) -> Markup:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc must not change the report
        matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 12})
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)  # 72 dpi: one unit is one CSS pixel
        box = (
            LEFT / WIDTH,
            BOTTOM / HEIGHT,
            (WIDTH - LEFT - RIGHT) / WIDTH,
            (HEIGHT - TOP - BOTTOM) / HEIGHT,
        )
        axes = figure.add_axes(box)
        if has_diagonal:
            axes.plot([0, 1], [0, 1], color=ROLES["muted"], linewidth=1, linestyle=(0, (4, 4)))
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(
            xs, ys, color=ROLES["val"], linewidth=2.2 if is_step else 1.3, clip_on=False,
            drawstyle="steps-post" if is_step else "default", solid_capstyle="round",
        )  # fmt: skip
        for x, y, size in zip(xs, ys, sizes):
            axes.plot([x], [y], marker="o", markersize=size, color=ROLES["val"], clip_on=False, linestyle="")
        for side in axes.spines.values():
            side.set_visible(False)
        axes.grid(visible=True, color=ROLES["grid"], linewidth=1)
        axes.set_axisbelow(True)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.tick_params(length=0, labelsize=11, labelcolor=ROLES["muted"], pad=5)
        axes.set_xticks(TICKS, [percent(t, 0) for t in TICKS])
        axes.set_yticks(TICKS, [percent(t, 0) for t in TICKS])
        style: dict[str, Any] = {"fontsize": 11, "color": ROLES["muted"]}
        axes.annotate(
            x_name, (1, 0), xycoords="axes fraction", xytext=(0, -20), textcoords="offset points", ha="right", va="top",
            **style,
        )  # fmt: skip
        axes.annotate(
            y_name, (0, 1), xycoords="axes fraction", xytext=(0, 9), textcoords="offset points", ha="left", va="bottom",
            **style,
        )  # fmt: skip
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return Markup(page_svg(file.getvalue(), name=f"unit-{name}", css_class="plot-narrow"))  # noqa: S704
