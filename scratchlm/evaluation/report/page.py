"""Fill the page: data of a run in, one self-contained HTML document out.

Nothing in the document reaches the network, and nothing a model or a file wrote can become markup: Jinja2
escapes every value, and a Content-Security-Policy allows one style and one script, named by their sha256.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from scratchlm.evaluation.report import claims, life, views
from scratchlm.evaluation.report.formats import FILTERS, is_number, printable
from scratchlm.evaluation.report.plots import accuracy_plot, loss_plot

TEMPLATES = Path(__file__).with_name("templates")


def render_report(data: Mapping[str, Any]) -> str:
    """Tell a run's whole story on one page: what was done, with what, and how well it went.

    Every part of `data` is optional; a stage that is missing is shown as not run.

    Raises: DataError when a figure contradicts itself: an attention or confusion matrix of the wrong size, or
        a share outside 0 to 1.
    Example:
        >>> page = render_report({"title": "A <small> run", "seconds": 12.5})
        >>> page.startswith("<!doctype html>"), "A &lt;small&gt; run" in page
        (True, True)
    """
    css, script = _asset("page.css"), _asset("page.js")
    plots = _plots(data)
    attention = views.attention_view(data["attention"]) if data.get("attention") else None
    coloured = views.coloured_view(data["coloured"]) if data.get("coloured") else None
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            data=data,
            life=life,
            claims=claims,
            views=views,
            plots=plots,
            attention=attention,
            coloured=coloured,
            page_data=views.page_data(plots=plots, attention=attention, coloured=coloured),
            css=css,
            script=script,
            style_hash=_csp_hash(css),
            script_hash=_csp_hash(script),
        )
    )


def _plots(data: Mapping[str, Any]) -> dict[str, Any]:
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


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,
    )
    environment.filters.update(FILTERS)
    return environment


def _asset(name: str) -> Markup:
    """The page's own style or script: ours, so that it goes in as it is."""
    text = (TEMPLATES / name).read_text(encoding="utf-8").strip()
    assert "</" not in text, "an inline block ends at the first closing tag"
    return Markup(text)  # noqa: S704


def _csp_hash(text: str) -> Markup:
    """The name by which a Content-Security-Policy allows one inline block."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return Markup(f"sha256-{base64.b64encode(digest).decode('ascii')}")  # noqa: S704
