"""`scratchlm finetune classify`: a classifier out of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, run_command
from scratchlm.cli.run import classify_line, without_lists
from scratchlm.cli.stage_runs import resumed_recipe, run_stage, with_end
from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.base import RANDOM
from scratchlm.finetuning.classifier_training import ClassifySettings
from scratchlm.recipes.recipe import DataSettings, Recipe
from scratchlm.training.trackers import TrackerName

KIND = "classify"
DEFAULTS = ClassifySettings(
    batch_size=32, learning_rate=3e-4, eval_every_steps=25, checkpoint_every_steps=100
)
DEFAULT_EPOCHS = 5.0  # as many as the book trains
RANDOM_EPOCHS = 2.0  # fresh weights all learn, and begin to memorise after two passes over the SMS messages


@dataclass(frozen=True, kw_only=True)
class FinetuneClassify(Common):
    """Fine-tune a classifier on labelled texts: SMS-style .tsv, .csv with text and label columns, or .jsonl.

    Without max_steps, epochs or max_minutes it trains 5 epochs, from random weights 2. The test texts share no
    near-duplicate with the training texts.

    Example: scratchlm finetune classify --base runs/quickstart --data SMSSpamCollection --out runs/spam
    """

    base: str | None = None  # the model to start from: a folder, or random:SIZE for fresh weights
    data: tuple[str, ...] = ()  # files, folders or globs of labelled texts, or a known name
    out: Path | None = None  # the run folder; default: runs/classify, runs/classify-2, ...
    resume: bool = False  # continue an interrupted run with its own settings
    seed: tyro.conf.Suppress[None] = None  # the training settings have it
    fresh: bool = False  # delete what is in the run folder and start over
    track: TrackerName | None = None  # tell wandb, mlflow or trackio too; TensorBoard needs no flag
    settings: Annotated[ClassifySettings, tyro.conf.arg(name="")] = field(default_factory=lambda: DEFAULTS)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the defaults of the run to be resumed, if there is one."""
    earlier = resumed_recipe(KIND, list(args))
    default = FinetuneClassify()
    if earlier is not None:
        default = FinetuneClassify(base=earlier.base, data=earlier.data.messages, settings=earlier.classify)
    return run_command(FinetuneClassify, _act, args, prog=prog, default=default)


def _act(command: FinetuneClassify, console: Console) -> dict[str, Any]:
    """Train, test and say what came out; returns the `--json` keys."""
    if command.base is None:
        raise ConfigError(
            "a classifier needs a base model, found none; name it with --base (e.g. random:small)."
        )
    epochs = RANDOM_EPOCHS if command.base.startswith(RANDOM) else DEFAULT_EPOCHS
    recipe = Recipe(
        stages=("classify",),
        base=command.base,
        data=DataSettings(messages=command.data),
        classify=with_end(command.settings, epochs=epochs),
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
    figures = result.figures["classify"]
    if not command.json:
        print(
            f"{figures['rows']:,} rows in {figures['groups']:,} groups of near-identical texts "
            f"({figures['duplicates']:,} duplicates)"
        )
        print(classify_line(figures))
        if figures["truncated"]:
            print(f"{figures['truncated']:,} training texts were longer than the model reads and were cut")
        print(f"{result.out}  (report: {result.report})")
    return {"out": str(result.out), "report": str(result.report), **without_lists(figures)}
