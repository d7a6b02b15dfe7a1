"""`scratchlm finetune instruct`: an assistant out of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.run import instruct_line, without_lists
from scratchlm.cli.stage_runs import resumed_recipe, run_stage, with_end
from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.recipe import DataSettings, Recipe
from scratchlm.training.trackers import TrackerName

KIND = "instruct"
DEFAULTS = InstructSettings(
    batch_size=8, learning_rate=1e-3, eval_every_steps=100, checkpoint_every_steps=200
)
DEFAULT_EPOCHS = 2.0  # as many as the book trains


@dataclass(frozen=True, kw_only=True)
class FinetuneInstruct(Common):
    """Fine-tune an assistant on entries of instruction, input and output, or on conversations (JSON or JSONL).

    Without max_steps, epochs or max_minutes it trains 2 epochs.

    Example: scratchlm finetune instruct --base runs/quickstart --data instruction-data.json --out runs/assistant
    """

    base: str | None = None  # the model to start from: a folder, or random:SIZE for fresh weights
    data: tuple[str, ...] = ()  # files of entries
    out: Path | None = None  # the run folder; default: runs/instruct, runs/instruct-2, ...
    resume: bool = False  # continue an interrupted run with its own settings
    seed: tyro.conf.Suppress[None] = None  # the training settings have it
    fresh: bool = False  # delete what is in the run folder and start over
    track: TrackerName | None = None  # tell wandb, mlflow or trackio too; TensorBoard needs no flag
    settings: Annotated[InstructSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    earlier = resumed_recipe(KIND, list(args))
    default = FinetuneInstruct()
    if earlier is not None:
        default = FinetuneInstruct(
            base=earlier.base, data=earlier.data.instructions, settings=earlier.instruct
        )
    return run_command(FinetuneInstruct, _act, args, prog=prog, default=default)


def _act(command: FinetuneInstruct, console: Console) -> dict[str, Any]:
    """Train, test and say what came out; returns the `--json` keys."""
    if command.base is None:
        raise ConfigError(
            "an assistant needs a base model, found none; name it with --base (e.g. runs/quickstart)."
        )
    recipe = Recipe(
        stages=("instruct",),
        base=command.base,
        data=DataSettings(instructions=command.data),
        instruct=with_end(command.settings, epochs=DEFAULT_EPOCHS),
    )
    result = run_stage(
        KIND,
        recipe,
        out=command.out,
        resume=command.resume,
        fresh=command.fresh,
        device=command.device,
        console=console,
        track=command.track,
    )
    figures = result.figures["instruct"]
    if not command.json:
        print(instruct_line(figures))
        print(
            f"training: {figures['tokens_per_s']:,.0f} real tokens/s, {figures['padding_share']:.1%} of the positions "
            f"are padding; {figures['truncated']} entries cut, {figures['left_out']} left out"
        )
        print(f"{result.out}  (answers: {result.out / 'answers.jsonl'}, report: {result.report})")
    return {"out": str(result.out), "report": str(result.report), **without_lists(figures)}
