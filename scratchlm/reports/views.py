"""What a section shows: lists cut to what a page can hold, matrices with their shares, data for the script.

The templates only place what stands here; what is left out is always counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchlm.reports.checks import Data, check_share, check_square
from scratchlm.reports.formats import for_page

MAX_SAMPLE_STEPS = 40
MAX_TOKENS = 400  # of the coloured text
MAX_ATTENTION = 40  # tokens along each side of the heat map
MAX_LISTED = 60  # answers or mistakes


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The part of a list that the page shows, and how many items it leaves out."""

    items: list[Any]
    n_left_out: int


def samples_by_step(samples: Sequence[Data]) -> Shown:
    """Texts grouped by the step that wrote them; of many steps an even choice with the first and the last."""
    steps: dict[Any, list[dict[str, str]]] = {}
    for sample in samples:
        prompt, text = str(sample.get("prompt") or ""), str(sample.get("text") or "")
        written = text[len(prompt) :] if prompt and text.startswith(prompt) else text
        steps.setdefault(sample.get("step"), []).append({"prompt": prompt, "text": written})
    groups = [{"step": step, "texts": texts} for step, texts in steps.items()]
    kept = even_choice(groups, MAX_SAMPLE_STEPS)
    return Shown(items=kept, n_left_out=len(groups) - len(kept))


def even_choice(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items at even distances, the first and the last among them.

    Example:
        >>> even_choice(range(9), 3), even_choice("ab", 3)
        ([0, 4, 8], ['a', 'b'])
    """
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[i] for i in sorted({round(k * last / (most - 1)) for k in range(most)})]


def first_few(items: Sequence[Any], most: int = MAX_LISTED) -> Shown:
    """The head of a list, and how many are left out."""
    return Shown(items=list(items[:most]), n_left_out=max(0, len(items) - most))


def attention_view(attention: Data) -> dict[str, Any]:
    """The attention pattern, cut to a size that a page can show.

    Raises: DataError when the weights are no square as wide as the list of tokens.
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
    """The tokens of one generation with their probabilities.

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
    """The rows of the confusion matrix: true class, counts, and each count's share of its row.

    Raises: DataError when the matrix has another size than the list of classes.
    """
    classes, matrix = list(classify["classes"]), classify["confusion"]
    check_square(
        matrix,
        len(classes),
        name="a confusion matrix",
        advice="count rows by true class and columns by predicted class",
    )
    rows = []
    for label, counts in zip(classes, matrix, strict=True):
        total = sum(counts)
        cells = [{"n": n, "share": n / total if total else None} for n in counts]
        rows.append({"label": label, "cells": cells, "total": total})
    return rows


def flat_settings(settings: Data, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as the dotted names that the command line takes.

    Example:
        >>> flat_settings({"model": {"n_layers": 4}, "seed": 1})
        [('model.n_layers', 4), ('seed', 1)]
    """
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows.extend(flat_settings(value, f"{prefix}{name}."))
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def page_data(*, plots: Mapping[str, Any], attention: Any, coloured: Any) -> dict[str, Any]:
    """What the script needs: the words under each curve, the attention weights, the token alternatives."""
    found: dict[str, Any] = {"plots": {name: plot.points for name, plot in plots.items() if plot}}
    if attention:
        found["attention"] = {
            "tokens": [for_page(t) for t in attention["tokens"]],
            "weights": attention["weights"],
        }
    if coloured:
        found["coloured"] = [
            {
                "text": for_page(token["text"]),
                "probability": token["probability"],
                "alternatives": [
                    [for_page(text), share] for text, share in list(token.get("alternatives") or [])[:6]
                ],
            }
            for token in coloured["tokens"]
        ]
    return found
