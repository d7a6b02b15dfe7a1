"""`scratchlm finetune prefer`: an assistant that answers as people like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.run import prefer_line, without_lists
from scratchlm.cli.stage_runs import resumed_recipe, run_stage, with_end
from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.preference_tuning import PreferSettings
from scratchlm.recipes.recipe import DataSettings, Recipe, Stage
from scratchlm.training.trackers import TrackerName

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
class FinetunePrefer(Common):
    """Tune a model on pairs of answers, of which people like one better (DPO and its variants).

    Entries hold chosen and rejected, and the request as prompt or as instruction and input (JSON or JSONL).
    Without max_steps, epochs or max_minutes it trains 1 epoch. With --lora-rank the base stays frozen, and the
    corrections are saved as adapter/ too.

    Example: scratchlm finetune prefer --base runs/assistant --data pairs.json --out runs/polite --loss dpo --beta 0.1
    """

    base: str | None = None  # the model to start from: a folder, or random:SIZE for fresh weights
    data: tuple[str, ...] = ()  # files of pairs
    out: Path | None = None  # the run folder; default: runs/prefer, runs/prefer-2, ...
    resume: bool = False  # continue an interrupted run with its own settings
    seed: tyro.conf.Suppress[None] = None  # the training settings have it
    fresh: bool = False  # delete what is in the run folder and start over
    track: TrackerName | None = None  # tell wandb, mlflow or trackio too; TensorBoard needs no flag
    settings: Annotated[PreferSettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    earlier = resumed_recipe(KIND, list(args))
    default = FinetunePrefer()
    if earlier is not None:
        default = FinetunePrefer(base=earlier.base, data=earlier.data.preferences, settings=earlier.prefer)
    return run_command(FinetunePrefer, _act, args, prog=prog, default=default)


def _act(command: FinetunePrefer, console: Console) -> dict[str, Any]:
    """Tune, test and say what came out; returns the `--json` keys."""
    if command.base is None:
        raise ConfigError(
            "preference tuning needs a base model, found none; name it with --base (e.g. runs/assistant)."
        )
    recipe = Recipe(
        stages=(KIND,),
        base=command.base,
        data=DataSettings(preferences=command.data),
        prefer=with_end(command.settings, epochs=DEFAULT_EPOCHS),
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
    figures = result.figures[KIND]
    if not command.json:
        print(prefer_line(figures))
        beside = "" if figures["adapter"] is None else f"adapter: {figures['adapter']}, "
        print(f"{result.out}  ({beside}answers: {result.out / 'answers.jsonl'}, report: {result.report})")
    return {"out": str(result.out), "report": str(result.report), **without_lists(figures)}
