"""Learning curves of one run: what a loss or an accuracy did while training went on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from scratchlm.reports.curves import (
    Plot,
    Series,
    bucket_means,
    column,
    curve_plot,
    every_nth,
    rows_by_step,
)
from scratchlm.reports.formats import axis_count, count, decimal, duration, is_number, percent

Words: TypeAlias = tuple[
    tuple[str, Callable[[float], str]], ...
]  # a key of the history, and how to tell its value
LOSSES: Words = (
    ("train_loss", lambda loss: f"training loss {decimal(loss)}"),
    ("val_loss", lambda loss: f"validation loss {decimal(loss)}"),
)
ACCURACY: Words = (("val_accuracy", lambda share: f"validation accuracy {percent(share)}"),)
SPENT: Words = (("tokens", lambda n: f"{axis_count(n)} tokens"), ("elapsed_s", duration))


def loss_plot(
    history: Sequence[Mapping[str, Any]], *, name: str, blind_loss: float | None = None
) -> Plot | None:
    """Training and validation loss against the step; None when nothing was recorded.

    `blind_loss` is the loss of a model that knows nothing, ln(V): drawn when training began near it.
    Units: nats per target.
    """
    rows = rows_by_step(history)
    train_rows = [row for row in rows if is_number(row.get("train_loss"))]
    train, per_point = bucket_means(train_rows, "train_loss")
    val = every_nth([row for row in rows if is_number(row.get("val_loss"))])
    if not train and not val:
        return None
    lines = [
        Series(
            role="train", steps=[s for s, _ in train], values=[v for _, v in train], words="training loss",
            dots=len(train) == 1, width=1.3, alpha=0.75,
        ),
        _validation_line(val, "val_loss", "validation loss"),
    ]  # fmt: skip
    first = train[0][1] if train else float(val[0]["val_loss"])
    reference = blind_loss if blind_loss is not None and 0.6 * blind_loss <= first else None
    words = [[row["step"], _describe(row, LOSSES)] for row in _merge(every_nth(rows), val)]
    return curve_plot(
        name, rows, lines, words, title="Loss, nats per target", reference=reference, per_point=per_point
    )


def accuracy_plot(history: Sequence[Mapping[str, Any]], *, name: str) -> Plot | None:
    """Validation accuracy against the step; None when none was recorded."""
    rows = every_nth([row for row in rows_by_step(history) if is_number(row.get("val_accuracy"))])
    if not rows:
        return None
    line = _validation_line(rows, "val_accuracy", "validation accuracy")
    words = [[row["step"], _describe(row, ACCURACY)] for row in rows]
    return curve_plot(
        name, rows, [line], words, title="Validation accuracy", tick=lambda value: percent(value, 0)
    )


def _validation_line(rows: Sequence[Mapping[str, Any]], key: str, words: str) -> Series:
    return Series(
        role="val", steps=column(rows, "step"), values=column(rows, key), words=words, dots=len(rows) <= 40
    )


def _describe(row: Mapping[str, Any], measured: Words) -> str:
    """One moment of training in words, for the line under the plot."""
    parts = [f"step {count(row['step'])}"]
    parts += [write(row[key]) for key, write in (*measured, *SPENT) if is_number(row.get(key))]
    return " · ".join(parts)


def _merge(rows: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Both lists without repeats, in order of steps; where a step stands in both, the second list wins."""
    by_step = {row["step"]: row for row in (*rows, *more)}
    return [by_step[step] for step in sorted(by_step)]
