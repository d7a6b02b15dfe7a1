"""`scratchlm classify`: label texts."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.streams import read_lines
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.printable import csv_cell, printable_json
from scratchlm.finetuning.classification_task import Prediction
from scratchlm.serving.language_model import load

LINES_AT_ONCE = 4096  # lines of standard input read at a time, for full batches and bounded memory
COLUMNS = ("text", "label", "probability", "truncated")
SHOWN_NUMBERS = 10  # maximum number of truncated texts that a note lists


@dataclass(frozen=True, kw_only=True)
class Classify(Common):
    """Label texts with a classifier: a label and its probability per text, in the order of the texts.

    Example: scratchlm classify --model runs/quickstart/classify "You have won a prize, reply now"
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()  # the texts; "-" reads one per line from standard input
    model: Path | None = None  # a classifier's model folder or run folder
    format: Literal["text", "csv", "jsonl"] = "text"  # text: label, probability and text, separated by tabs
    batch_size: int = 64  # texts in one forward pass

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size)


@command_line(Classify)
def main(command: Classify, console: Console) -> dict[str, Any]:
    """Classify the texts and print the results; returns the `--json` keys."""
    if command.model is None:
        raise ConfigError("classify needs a classifier; name its folder with --model.")
    if not command.texts:
        raise ConfigError("classify needs a text; give texts, or - to read lines from standard input.")
    if "-" in command.texts and len(command.texts) > 1:
        raise ConfigError(
            "the argument - (standard input) cannot be combined with other texts; give one or the other."
        )
    lm = load(command.model, device=command.device)
    results: list[dict[str, Any]] = []
    cut: list[int] = []  # the numbers of the texts that were truncated
    n_texts = 0
    if command.format == "csv":
        csv.writer(sys.stdout, lineterminator="\n").writerow(COLUMNS)  # printed also if there are no texts
    for texts in _batches(command.texts):
        predictions = lm.classify(texts, batch_size=command.batch_size)
        cut += [number for number, p in enumerate(predictions, start=n_texts + 1) if p.is_truncated]
        rows = [_row(prediction) for prediction in predictions]
        if command.json:
            results += rows  # kept only for --json, since standard input may be long
        _print(rows, command.format)
        n_texts += len(texts)
    if cut:
        shown = ", ".join(map(str, cut[:SHOWN_NUMBERS])) + (", ..." if len(cut) > SHOWN_NUMBERS else "")
        console.print(
            f"{len(cut):,} of {n_texts:,} texts were longer than the model reads (number {shown}); only their "
            f"first {lm.task['max_length']:,} tokens were classified."
        )
    return {"results": results, "truncated": len(cut)}


def _row(prediction: Prediction) -> dict[str, Any]:
    return {
        "text": prediction.text,
        "label": prediction.label,
        "probability": prediction.probability,
        "truncated": prediction.is_truncated,
    }


def _print(rows: Sequence[dict[str, Any]], form: str) -> None:
    if form == "csv":
        cells = [{name: csv_cell(value) for name, value in row.items()} for row in rows]
        csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n").writerows(cells)
        return
    for row in rows:
        if form == "jsonl":
            print(printable_json(json.dumps(row, ensure_ascii=False)))
        else:
            print(f"{row['label']}\t{row['probability']:.4f}\t{row['text']}")


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    if tuple(texts) != ("-",):
        yield list(texts)
        return
    lines = read_lines()
    number = 0
    while batch := list(islice(lines, LINES_AT_ONCE)):
        for line in batch:
            number += 1
            if not line.strip():
                raise DataError(f"line {number} of standard input is empty; remove it.")
        yield batch
