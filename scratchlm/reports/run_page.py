"""The page of a run: its data in, one self-contained HTML document out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scratchlm.reports import claims, stage_summary, views
from scratchlm.reports.canvas import Drawing
from scratchlm.reports.curves import Plot
from scratchlm.reports.formats import is_number
from scratchlm.reports.page_shell import render_page
from scratchlm.reports.paired_items import Paired, browser_data
from scratchlm.reports.plots import accuracy_plot, loss_plot
from scratchlm.reports.unit_plots import ranking_plot, reliability_plot


def render_report(data: Mapping[str, Any], paired: Paired | None = None) -> str:
    """Tell a run's whole story on one page: what was done, with what, and how well it went.

    Every part of `data` is optional; a stage that is missing is shown as not run. `paired` holds all answers, to be
    searched item by item.

    Raises: DataError when a figure contradicts itself: an attention or confusion matrix of the wrong size, or
        a share outside 0 to 1.
    Example:
        >>> page = render_report({"title": "A <small> run", "seconds": 12.5})
        >>> page.startswith("<!doctype html>"), "A &lt;small&gt; run" in page
        (True, True)
    """
    plots = _plots(data)
    attention = views.attention_view(data["attention"]) if data.get("attention") else None
    coloured = views.coloured_view(data["coloured"]) if data.get("coloured") else None
    classify = data.get("classify") or {}
    items = None if paired is None or not paired.items else browser_data(paired)
    return render_page(
        "page.html.jinja",
        scripts=("page.js",) if items is None else ("page.js", "items.js"),
        page_data=views.page_data(plots=plots, attention=attention, coloured=coloured)
        | ({} if items is None else {"items": items}),
        paired=None if items is None else paired,
        differences=[],
        data=data,
        life=stage_summary,
        claims=claims,
        views=views,
        plots=plots,
        attention=attention,
        coloured=coloured,
        reliability=reliability_plot(classify.get("reliability")),
        roc=ranking_plot(classify.get("curves"), "roc"),
        precision_recall=ranking_plot(classify.get("curves"), "precision_recall"),
    )


def report_drawings(data: Mapping[str, Any]) -> list[Drawing]:
    """The plots of the page, to be saved as files."""
    classify = data.get("classify") or {}
    others = (
        reliability_plot(classify.get("reliability")),
        ranking_plot(classify.get("curves"), "roc"),
        ranking_plot(classify.get("curves"), "precision_recall"),
    )
    curves = [plot.drawing for plot in _plots(data).values() if plot is not None]
    return [*curves, *(drawing for drawing in others if drawing is not None)]


def _plots(data: Mapping[str, Any]) -> dict[str, Plot | None]:
    """Every learning curve the data has a history for; None where there is none."""
    histories = {
        name: (data.get(name) or {}).get("history") or []
        for name in ("pretrain", "classify", "instruct", "prefer")
    }
    vocab_size = (data.get("tokenizer") or {}).get("vocab_size")
    blind_loss = math.log(vocab_size) if is_number(vocab_size) and vocab_size > 1 else None
    return {
        "pretrain": loss_plot(histories["pretrain"], name="pretrain", blind_loss=blind_loss),
        "classify_loss": loss_plot(histories["classify"], name="classify_loss"),
        "classify_accuracy": accuracy_plot(histories["classify"], name="classify_accuracy"),
        "instruct": loss_plot(histories["instruct"], name="instruct"),
        "prefer": loss_plot(histories["prefer"], name="prefer"),
    }
