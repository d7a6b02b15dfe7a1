"""Render the report page of one run as a self-contained HTML document.

The functions between `render_report` and `page_data` prepare the values for the templates: lists shortened to
fit a page, the confusion matrix with shares, the overview of the stages. Omitted items are always counted.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchlm.recipes.recipe import STAGE_DATA, flat_settings
from scratchlm.reports.canvas import Drawing
from scratchlm.reports.figures import Data, baseline_bars, check_share, check_square, claims
from scratchlm.reports.formats import (
    count,
    decimal,
    duration,
    for_page,
    interval_text,
    is_number,
    listed,
    percent,
    short_count,
)
from scratchlm.reports.learning_curves import Plot, accuracy_plot, even_choice, loss_plot
from scratchlm.reports.page_shell import render_page
from scratchlm.reports.paired_items import Paired, browser_data
from scratchlm.reports.plots import ranking_plot, reliability_plot

MAX_SAMPLE_STEPS = 40
MAX_TOKENS = 400  # of the text coloured by probability
MAX_ATTENTION = 40  # tokens along each side of the heat map
MAX_LISTED = 60  # answers or mistakes


def render_report(data: Mapping[str, Any], paired: Paired | None = None) -> str:
    """Render a run's report: data, training, results and settings of every stage.

    Every part of `data` is optional; a missing stage is shown as not run. `paired` has all answers, in which
    the page can search.

    Raises: DataError when a figure is inconsistent: an attention or confusion matrix of the wrong size, or a share
        outside 0 to 1.
    Example:
        >>> page = render_report({"title": "A <small> run", "seconds": 12.5})
        >>> page.startswith("<!doctype html>"), "A &lt;small&gt; run" in page
        (True, True)
    """
    plots = _plots(data)
    attention = attention_view(data["attention"]) if data.get("attention") else None
    coloured = coloured_view(data["coloured"]) if data.get("coloured") else None
    items = None if paired is None or not paired.items else browser_data(paired)
    values: dict[str, Any] = {function.__name__: function for function in FOR_TEMPLATES}
    values |= _classifier_plots(data)
    return render_page(
        "run.html.jinja",
        scripts=() if items is None else ("items.js",),
        page_data=page_data(plots=plots, attention=attention, coloured=coloured)
        | ({} if items is None else {"items": items}),
        paired=None if items is None else paired,
        differences=[],
        data=data,
        summary=summary(data),
        lifecycle_steps=lifecycle_steps(data),
        figures=claims(data),
        plots=plots,
        attention=attention,
        coloured=coloured,
        **values,
    )


def report_drawings(data: Mapping[str, Any]) -> list[Drawing]:
    """The plots of the page, to be saved as files."""
    curves = [plot.drawing for plot in _plots(data).values() if plot is not None]
    return [*curves, *(drawing for drawing in _classifier_plots(data).values() if drawing is not None)]


def _classifier_plots(data: Mapping[str, Any]) -> dict[str, Drawing | None]:
    """A classifier's calibration, ROC and precision-recall curves; None where they were not measured."""
    classify = data.get("classify") or {}
    return {
        "reliability": reliability_plot(classify.get("reliability")),
        "roc": ranking_plot(classify.get("curves"), "roc"),
        "precision_recall": ranking_plot(classify.get("curves"), "precision_recall"),
    }


def _plots(data: Mapping[str, Any]) -> dict[str, Plot | None]:
    """Each stage's learning curves; None where there is no history."""
    histories = {name: (data.get(name) or {}).get("history") or [] for name in STAGE_DATA}
    vocab_size = (data.get("tokenizer") or {}).get("vocab_size")
    uniform_loss = math.log(vocab_size) if is_number(vocab_size) and vocab_size > 1 else None
    return {
        "pretrain": loss_plot(histories["pretrain"], name="pretrain", uniform_loss=uniform_loss),
        "classify_loss": loss_plot(histories["classify"], name="classify_loss"),
        "classify_accuracy": accuracy_plot(histories["classify"], name="classify_accuracy"),
        "instruct": loss_plot(histories["instruct"], name="instruct"),
        "prefer": loss_plot(histories["prefer"], name="prefer"),
    }


@dataclass(frozen=True)
class LifecycleStep:
    """One of the four steps of the model lifecycle, with its main metric."""

    anchor: str
    title: str
    was_run: bool
    figure: str
    unit: str
    lines: list[str]


def lifecycle_steps(data: Data) -> list[LifecycleStep]:
    """The overview at the top of the page: the main metric of each step, or a note that it was not run."""
    stages: list[tuple[str, str, str, Callable[[Data], tuple[str, str, list[str]]]]] = [
        ("tokenizer", "tokens", "Tokenizer", _tokens_figure),
        ("pretrain", "pretrain", "Pre-training", _pretrain_figure),
        ("classify", "classify", "Classification", lambda s: _share_figure(s, "test_accuracy", "messages")),
        ("instruct", "instruct", "Instruction tuning", lambda s: _share_figure(s, "exact_match", "tasks")),
    ]
    timed = {stage.get("name"): stage.get("seconds") for stage in data.get("stages") or []}
    steps = []
    for key, anchor, title, describe in stages:
        stage = data.get(key)
        figure, unit, lines = describe(stage) if stage else ("", "", [])
        seconds = stage.get("seconds", timed.get(key)) if stage else None
        if is_number(seconds):
            lines.append(f"in {duration(seconds)}")
        steps.append(LifecycleStep(anchor, title, was_run=bool(stage), figure=figure, unit=unit, lines=lines))
    return steps


def summary(data: Data) -> str:
    """Describe the run in one or two sentences, from the available data."""
    pretrain = data.get("pretrain")
    parts = []
    if pretrain:
        size, tokens = pretrain.get("parameters"), pretrain.get("train_tokens")
        model = f"A GPT with {short_count(size)} parameters" if is_number(size) else "A GPT"
        source = f"{short_count(tokens)} tokens of text" if is_number(tokens) else "text"
        is_training = (data.get("unfinished") or {}).get("stage") == "pretrain"
        parts.append(f"{model}, {'being pre-trained' if is_training else 'pre-trained'} on {source}")
    known = (("classify", "as a classifier"), ("instruct", "as an assistant"), ("prefer", "on preferences"))
    after = [words for stage, words in known if data.get(stage)]
    if after:
        begin = "and then fine-tuned" if parts else "A GPT, fine-tuned"
        parts.append(f"{begin} {listed(after)}")
    sentence = " ".join(parts) + "." if parts else ""
    if is_number(data.get("seconds")):
        machine = data.get("machine") or {}
        is_cpu = machine.get("device") == "cpu" and is_number(machine.get("cores"))
        where = f"{count(machine['cores'])} CPU cores" if is_cpu else machine.get("device")
        sentence += f" The whole run took {duration(data['seconds'])}{f' on {where}' if where else ''}."
    return sentence.strip()


def _tokens_figure(stage: Data) -> tuple[str, str, list[str]]:
    lines = [f"{stage['kind']} tokenizer"] if stage.get("kind") else []
    if is_number(stage.get("bytes_per_token")):
        lines.append(f"{decimal(stage['bytes_per_token'])} bytes of text per token")
    return count(stage.get("vocab_size")), "tokens in the vocabulary", lines


def _pretrain_figure(stage: Data) -> tuple[str, str, list[str]]:
    lines = []
    if is_number(stage.get("perplexity")):
        lines.append(f"perplexity {decimal(stage['perplexity'], 1)}")
    if is_number(stage.get("train_tokens")):
        lines.append(f"{short_count(stage['train_tokens'])} training tokens")
    return decimal(stage.get("val_loss")), "validation loss", lines


def _share_figure(stage: Data, key: str, items: str) -> tuple[str, str, list[str]]:
    lines = [f"of {count(stage['test_n'])} held-out {items}"] if is_number(stage.get("test_n")) else []
    ends = interval_text(stage.get("low"), stage.get("high"))
    return percent(stage.get(key)), key.replace("_", " "), [*lines, f"95% interval {ends}"] if ends else lines


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The part of a list that the page shows, and the number of omitted items."""

    items: list[Any]
    n_left_out: int


def samples_by_step(samples: Sequence[Data]) -> Shown:
    """Samples grouped by training step; for many steps an even selection with the first and the last."""
    steps: dict[Any, list[dict[str, str]]] = {}
    for sample in samples:
        steps.setdefault(sample.get("step"), []).append(prompt_and_text(sample))
    groups = [{"step": step, "texts": texts} for step, texts in steps.items()]
    kept = even_choice(groups, MAX_SAMPLE_STEPS)
    return Shown(items=kept, n_left_out=len(groups) - len(kept))


def prompt_and_text(sample: Data) -> dict[str, str]:
    """A sample's prompt, and the text that the model wrote after it."""
    prompt, text = str(sample.get("prompt") or ""), str(sample.get("text") or "")
    return {"prompt": prompt, "text": text.removeprefix(prompt)}


def first_few(items: Sequence[Any], limit: int = MAX_LISTED) -> Shown:
    """The beginning of a list, and the number of omitted items."""
    return Shown(items=list(items[:limit]), n_left_out=max(0, len(items) - limit))


def attention_view(attention: Data) -> dict[str, Any]:
    """The attention weights, cut to a size that fits the page.

    Raises: DataError when the weights are not a square matrix with a row per token.
    """
    tokens, weights = list(attention["tokens"]), attention["weights"]
    check_square(weights, len(tokens), name="attention weights", advice="pass one head's (T, T) weights")
    size = min(len(tokens), MAX_ATTENTION)
    rows = [[float(weight) for weight in row[: i + 1]] for i, row in enumerate(weights[:size])]
    for weight in (weight for row in rows for weight in row):
        check_share(weight, "an attention weight")
    return {
        "layer": attention.get("layer"),
        "head": attention.get("head"),
        "tokens": tokens[:size],
        "weights": [[round(min(weight, 1.0), 4) for weight in row] for row in rows],
        "n_left_out": len(tokens) - size,
    }


def coloured_view(coloured: Data) -> dict[str, Any]:
    """The tokens of one generated text with their probabilities.

    Raises: DataError when a probability lies outside 0 to 1.
    """
    shown = first_few(list(coloured["tokens"]), MAX_TOKENS)
    for token in shown.items:
        for text, share in [(token["text"], token["probability"]), *(token.get("alternatives") or [])]:
            check_share(share, f"the probability of token {text!r}")
    shares = [float(token["probability"]) for token in shown.items]
    return {
        "prompt": str(coloured.get("prompt") or ""),
        "tokens": shown.items,
        "n_left_out": shown.n_left_out,
        "n_sure": sum(share >= 0.5 for share in shares),
    }


def confusion_view(classify: Data) -> list[dict[str, Any]]:
    """The rows of the confusion matrix: actual class, counts, and each count's share of its row.

    Raises: DataError when the matrix does not have a row and a column per class.
    """
    classes, matrix = list(classify["classes"]), classify["confusion"]
    advice = "rows are actual classes and columns predicted classes"
    check_square(matrix, len(classes), name="a confusion matrix", advice=advice)
    rows = []
    for label, counts in zip(classes, matrix, strict=True):
        total = sum(counts)
        cells = [{"n": n, "share": n / total if total else None} for n in counts]
        rows.append({"label": label, "cells": cells, "total": total})
    return rows


def page_data(*, plots: Mapping[str, Any], attention: Any, coloured: Any) -> dict[str, Any]:
    """The data for the page's script: texts for each curve, attention weights, token alternatives."""
    found: dict[str, Any] = {"plots": {name: plot.points for name, plot in plots.items() if plot}}
    if attention:
        tokens = [for_page(t) for t in attention["tokens"]]
        found["attention"] = {"tokens": tokens, "weights": attention["weights"]}
    if coloured:
        found["coloured"] = [
            {
                "text": for_page(token["text"]),
                "probability": token["probability"],
                "alternatives": [[for_page(text), share] for text, share in token.get("alternatives") or []][
                    :6
                ],
            }
            for token in coloured["tokens"]
        ]
    return found


# Functions that the templates of the run page call.
FOR_TEMPLATES = (baseline_bars, confusion_view, first_few, flat_settings, samples_by_step)
