"""`scratchlm finetune prefer`: an assistant that answers as people like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.finetuning import FineTuning, finetuning_command, run_finetuning, stage_json
from scratchlm.cli.run import prefer_line
from scratchlm.finetuning.preference import PreferSettings
from scratchlm.recipes.recipe import Stage

KIND: Stage = "prefer"
DEFAULTS = PreferSettings(
    batch_size=8,
    learning_rate=1e-4,  # small: the answers should change, not the language
    weight_decay=0.01,
    eval_every_steps=100,
    checkpoint_every_steps=200,
)
DEFAULT_EPOCHS = 1.0  # as many as the book trains


@dataclass(frozen=True, kw_only=True)
class FinetunePrefer(FineTuning):
    """Tune a model on pairs of answers, of which people like one better (DPO and its variants).

    Rows hold chosen and rejected and their request, as texts or as messages, in most published forms.
    Without max_steps, epochs or max_minutes it trains 1 epoch. With --lora-rank the base stays frozen, and the
    corrections are saved as adapter/ too.

    Example: scratchlm finetune prefer --base runs/assistant --data pairs.json --out runs/polite --loss dpo --beta 0.1
    """

    settings: Annotated[PreferSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    return finetuning_command(FinetunePrefer, KIND, _act, args, prog=prog)


def _act(command: FinetunePrefer, console: Console) -> dict[str, Any]:
    """Tune, test and say what came out; returns the `--json` keys."""
    result = run_finetuning(
        command,
        KIND,
        command.settings,
        console,
        epochs=DEFAULT_EPOCHS,
        who="preference tuning",
        example="runs/assistant",
    )
    figures = result.figures[KIND]
    if not command.json:
        print(prefer_line(figures))
        beside = "" if figures["adapter"] is None else f"adapter: {figures['adapter']}, "
        print(f"{result.out}  ({beside}answers: {result.out / 'answers.jsonl'}, report: {result.report})")
    return stage_json(result, KIND)
