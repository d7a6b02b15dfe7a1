"""`scratchlm finetune classify`: a classifier out of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.finetuning import FineTuning, finetuning_command, run_finetuning, stage_json
from scratchlm.cli.run import classify_line
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.recipes.recipe import Stage

KIND: Stage = "classify"
DEFAULTS = ClassifySettings(
    batch_size=32, learning_rate=3e-4, eval_every_steps=25, checkpoint_every_steps=100
)
DEFAULT_EPOCHS = 5.0  # as many as the book trains
# Fresh weights have everything to learn: faster, and from all tokens instead of the last one; see dev/LOG.md.
FRESH = replace(DEFAULTS, learning_rate=1e-3, position="mean", drop_rate=0.2)


@dataclass(frozen=True, kw_only=True)
class FinetuneClassify(FineTuning):
    """Fine-tune a classifier on labelled texts: SMS-style .tsv, .csv with text and label columns, or .jsonl.

    Without max_steps, epochs or max_minutes it trains 5 epochs. Random weights learn faster, with dropout, and from
    all tokens of a text (--learning-rate 1e-3 --drop-rate 0.2 --position mean). The test texts share no near-duplicate
    with the training texts.

    Example: scratchlm finetune classify --base runs/quickstart --data SMSSpamCollection --out runs/spam
    """

    settings: Annotated[ClassifySettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    return finetuning_command(FinetuneClassify, KIND, _act, args, prog=prog, fresh=FRESH)


def _act(command: FinetuneClassify, console: Console) -> dict[str, Any]:
    """Train, test and say what came out; returns the `--json` keys."""
    result = run_finetuning(
        command,
        KIND,
        command.settings,
        console,
        epochs=DEFAULT_EPOCHS,
        who="a classifier",
        example="random:small",
    )
    figures = result.figures[KIND]
    if not command.json:
        print(
            f"{figures['rows']:,} rows in {figures['groups']:,} groups of near-identical texts "
            f"({figures['duplicates']:,} duplicates): {figures['split']}"
        )
        print(classify_line(figures))
        if figures["truncated"]:
            print(f"{figures['truncated']:,} training texts were longer than the model reads and were cut")
        print(f"{result.out}  (report: {result.report})")
    return stage_json(result, KIND)
