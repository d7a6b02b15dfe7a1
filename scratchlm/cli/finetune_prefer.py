"""`scratchlm finetune prefer`: tune a model on preferences between answers."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from scratchlm.cli.finetuning import FineTuning, Kind, finetuning_command
from scratchlm.cli.run import prefer_line
from scratchlm.finetuning.preference import PreferSettings
from scratchlm.recipes.run import RunResult

DEFAULTS = PreferSettings(
    batch_size=8,
    learning_rate=1e-4,  # small, to change the answers but not the language
    weight_decay=0.01,
    eval_every_steps=100,
    checkpoint_every_steps=200,
)


@dataclass(frozen=True, kw_only=True)
class FinetunePrefer(FineTuning):
    """Tune a model on pairs of a chosen and a rejected answer (DPO and its variants).

    Rows hold chosen and rejected and their request, as texts or as messages, in most published forms.
    Without max_steps, epochs or max_minutes it trains 1 epoch. With --lora-rank the base stays frozen, and the
    adapter is saved in adapter/ too.

    Example: scratchlm finetune prefer --base runs/assistant --data pairs.json --out runs/polite --loss dpo --beta 0.1
    """

    settings: Annotated[PreferSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def _lines(result: RunResult) -> list[str]:
    figures = result.figures["prefer"]
    adapter = "" if figures["adapter"] is None else f"adapter: {figures['adapter']}, "
    return [
        prefer_line(figures),
        f"{result.out}  ({adapter}answers: {result.out / 'answers.jsonl'}, report: {result.report})",
    ]


main = finetuning_command(
    FinetunePrefer,
    Kind(
        stage="prefer",
        name="preference tuning",
        example="runs/assistant",
        epochs=1,  # as many as the book trains
        lines=_lines,
    ),
)
