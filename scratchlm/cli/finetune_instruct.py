"""`scratchlm finetune instruct`: fine-tune an assistant that follows instructions."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from scratchlm.cli.finetuning import FineTuning, Kind, finetuning_command
from scratchlm.cli.run import instruct_line
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.run import RunResult

DEFAULTS = InstructSettings(
    batch_size=8, learning_rate=1e-3, eval_every_steps=100, checkpoint_every_steps=200
)


@dataclass(frozen=True, kw_only=True)
class FinetuneInstruct(FineTuning):
    """Fine-tune an assistant on rows of instruction, input and output, or on conversations, in most published forms.

    Without max_steps, epochs or max_minutes it trains 2 epochs.

    Example: scratchlm finetune instruct --base runs/quickstart --data instruction-data.json --out runs/assistant
    """

    settings: Annotated[InstructSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def _lines(result: RunResult) -> list[str]:
    figures = result.figures["instruct"]
    return [
        instruct_line(figures),
        f"training: {figures['tokens_per_s']:,.0f} real tokens/s, {figures['padding_share']:.1%} of the positions "
        f"are padding; {figures['truncated']} entries cut, {figures['left_out']} left out",
        f"{result.out}  (answers: {result.out / 'answers.jsonl'}, report: {result.report})",
    ]


main = finetuning_command(
    FinetuneInstruct,
    Kind(
        stage="instruct",
        name="an assistant",
        example="runs/quickstart",
        epochs=2,  # as many as the book trains
        lines=_lines,
    ),
)
