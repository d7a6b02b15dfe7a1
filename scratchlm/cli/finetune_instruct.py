"""`scratchlm finetune instruct`: an assistant out of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.finetuning import FineTuning, finetuning_command, run_finetuning, stage_json
from scratchlm.cli.run import instruct_line
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.recipe import Stage

KIND: Stage = "instruct"
DEFAULTS = InstructSettings(
    batch_size=8, learning_rate=1e-3, eval_every_steps=100, checkpoint_every_steps=200
)
DEFAULT_EPOCHS = 2.0  # as many as the book trains


@dataclass(frozen=True, kw_only=True)
class FinetuneInstruct(FineTuning):
    """Fine-tune an assistant on rows of instruction, input and output, or on conversations, in most published forms.

    Without max_steps, epochs or max_minutes it trains 2 epochs.

    Example: scratchlm finetune instruct --base runs/quickstart --data instruction-data.json --out runs/assistant
    """

    settings: Annotated[InstructSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    return finetuning_command(FinetuneInstruct, KIND, _act, args, prog=prog)


def _act(command: FinetuneInstruct, console: Console) -> dict[str, Any]:
    """Train, test and say what came out; returns the `--json` keys."""
    result = run_finetuning(
        command,
        KIND,
        command.settings,
        console,
        epochs=DEFAULT_EPOCHS,
        who="an assistant",
        example="runs/quickstart",
    )
    figures = result.figures[KIND]
    if not command.json:
        print(instruct_line(figures))
        print(
            f"training: {figures['tokens_per_s']:,.0f} real tokens/s, {figures['padding_share']:.1%} of the positions "
            f"are padding; {figures['truncated']} entries cut, {figures['left_out']} left out"
        )
        print(f"{result.out}  (answers: {result.out / 'answers.jsonl'}, report: {result.report})")
    return stage_json(result, KIND)
