"""`scratchlm finetune classify`: fine-tune a text classifier."""

from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from scratchlm.cli.finetuning import FineTuning, Kind, finetuning_command
from scratchlm.cli.run import classify_line
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.recipes.run import RunResult

DEFAULTS = ClassifySettings(
    batch_size=32, learning_rate=3e-4, eval_every_steps=25, checkpoint_every_steps=100
)


@dataclass(frozen=True, kw_only=True)
class FinetuneClassify(FineTuning):
    """Fine-tune a classifier on labelled texts: SMS-style .tsv, .csv with text and label columns, or .jsonl.

    Without max_steps, epochs or max_minutes it trains 5 epochs. Random weights start as a linear model of the texts'
    tokens, and by default change little from there: a lower learning rate, dropout and early stopping
    (--start linear --learning-rate 3e-5 --drop-rate 0.2 --patience 4). The test texts share no near-duplicate with the
    training texts.

    Example: scratchlm finetune classify --base runs/quickstart --data SMSSpamCollection --out runs/spam
    """

    settings: Annotated[ClassifySettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def _lines(result: RunResult) -> list[str]:
    figures = result.figures["classify"]
    truncated = f"{figures['truncated']:,} training texts exceeded the maximum length and were cut"
    return [
        f"{figures['rows']:,} rows in {figures['groups']:,} groups of near-identical texts "
        f"({figures['duplicates']:,} duplicates): {figures['split']}",
        classify_line(figures),
        *([truncated] if figures["truncated"] else []),
        f"{result.out}  (report: {result.report})",
    ]


main = finetuning_command(
    FinetuneClassify,
    Kind(
        stage="classify",
        name="a classifier",
        example="random:small",
        epochs=5,  # as many as the book trains
        lines=_lines,
        random_base_settings=replace(
            DEFAULTS, start="linear", learning_rate=3e-5, drop_rate=0.2, patience=4
        ),  # see dev/LOG.md
    ),
)
