"""`scratchlm classify`: label texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.standard_input import read_lines
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.serving.language_model import load

LINES_AT_ONCE = 4096  # of standard input: full batches, bounded memory


@dataclass(frozen=True, kw_only=True)
class Classify(Common):
    """Label texts with a classifier: a label and its probability per text.

    Example: scratchlm classify --model runs/quickstart/classify "You have won a prize, reply now"
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()  # the texts; "-" reads one per line from standard input
    model: Path | None = None  # a classifier's model folder or run folder


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse and run."""
    return run_command(Classify, _act, args, prog=prog)


def _act(command: Classify, console: Console) -> dict[str, Any]:
    """Label and print; returns the `--json` keys."""
    if command.model is None:
        raise ConfigError("classify needs a classifier, found no --model; name its folder.")
    if not command.texts:
        raise ConfigError(
            "classify needs a text, found none; give texts, or - to read lines from standard input."
        )
    lm = load(command.model, device=command.device)
    results = []
    n_cut = 0
    for texts in _batches(command.texts):
        for prediction in lm.classify(texts):
            n_cut += int(prediction.is_truncated)
            if command.json:
                results.append(
                    {
                        "text": prediction.text,
                        "label": prediction.label,
                        "probability": prediction.probability,
                    }
                )
            else:
                print(f"{prediction.label}\t{prediction.probability:.4f}\t{prediction.text}")
    if n_cut:
        console.print(
            f"{n_cut} texts were longer than the model reads; their first part was judged.", markup=False
        )
    return {"results": results, "truncated": n_cut}


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
                raise DataError(f"standard input, line {number} must hold a text, found nothing; remove it.")
        yield batch
