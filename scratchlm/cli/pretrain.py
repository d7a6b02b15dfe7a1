"""`scratchlm pretrain`: train a new language model on text."""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import run_command
from scratchlm.cli.progress import work_progress
from scratchlm.cli.run import refuse_idle_vocab_size, source_lines
from scratchlm.cli.stage_runs import (
    StageFlags,
    recipe_argument,
    resumed_recipe,
    run_stage,
    with_end,
    with_size,
)
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError
from scratchlm.core.launch import launched_ranks
from scratchlm.evaluation.loss import format_bits_per_byte
from scratchlm.recipes.recipe import DataSettings, Recipe, Stage
from scratchlm.recipes.stages import StageRun, find_learning_rate
from scratchlm.training.config import TrainingConfig
from scratchlm.training.lr_range import N_STEPS, suggested_rate
from scratchlm.training.settings import ModelSettings, SizeName, TextSettings, TokenizerSettings

KIND: Stage = "pretrain"
DEFAULT_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Pretrain(StageFlags):
    """Pre-train a language model on text: files, folders, globs, .jsonl, .parquet, a known name, or token shards
    (ours, or a data folder of nanoGPT).

    Without --max-steps, --epochs or --max-minutes it trains for 1,000 steps.

    Example: scratchlm pretrain --data my_books/ --out runs/books --config small --max-steps 2000
    """

    data: tuple[str, ...] = ()  # text files, folders, globs, or names from `scratchlm data list`
    # numbers, one for each of --data: the shares of the training tokens that they give; without them all are one text
    data_weights: tuple[float, ...] = ()
    val_data: tuple[str, ...] = ()  # separate validation text, instead of a part of the data
    recipe: str | None = None  # use the settings of this recipe, e.g. shakespeare
    find_lr: bool = False  # train for 100 steps with a rising learning rate, suggest one, and write no run
    config: SizeName | None = None  # size of the model: short for --model.size
    sample_prompt: str = "Once upon a time"  # prompt of the text samples shown during training
    text: Annotated[TextSettings, tyro.conf.arg(name="")] = field(default_factory=TextSettings)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: TrainingConfig(sample_every_steps=250, checkpoint_every_steps=250)
    )
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)


def main(args: Sequence[str], *, prog: str) -> int:
    """Parse with the settings of the recipe, or of the run to resume, as defaults."""
    base = resumed_recipe(KIND, list(args)) or recipe_argument(list(args))
    default = Pretrain()
    if base is not None:
        text = {f.name: getattr(base.data, f.name) for f in dataclasses.fields(TextSettings)}
        default = Pretrain(
            data=base.data.text,
            data_weights=base.data.text_weights,
            val_data=base.data.val_text,
            sample_prompt=base.sample_prompt,
            text=TextSettings(**text),
            training=base.pretrain,
            tokenizer=base.tokenizer,
            model=base.model,
        )

    def action(command: Pretrain, console: Console) -> dict[str, Any]:
        refuse_idle_vocab_size(args, command.tokenizer)
        return _act(command, with_size(command.model, command.config, args), console)

    return run_command(Pretrain, action, args, prog=prog, default=default)


def _act(command: Pretrain, model: ModelSettings, console: Console) -> dict[str, Any]:
    """Train the model and print the result; returns the `--json` keys."""
    data: dict[str, Any] = {"text": command.data, "text_weights": command.data_weights, **vars(command.text)}
    recipe = Recipe(
        stages=("pretrain",),
        sample_prompt=command.sample_prompt,
        data=DataSettings(val_text=command.val_data, **data),
        tokenizer=command.tokenizer,
        model=model,
        pretrain=with_end(command.training, max_steps=DEFAULT_STEPS),
    )
    if command.find_lr:
        if launched_ranks() is not None:
            raise ConfigError("--find-lr runs in one process; start it without torchrun.")
        return _find_learning_rate(command, recipe, console)
    result = run_stage(KIND, recipe, command, console)
    figures = result.figures["pretrain"]
    print(
        f"{result.out}: step {figures['step']}, validation loss {figures['val_loss']:.4f} nats per token, "
        f"{format_bits_per_byte(figures['bits_per_byte'])}; report: {result.report}{source_lines(figures)}"
    )
    return {"out": str(result.out), "report": str(result.report), **figures}


def _find_learning_rate(command: Pretrain, recipe: Recipe, console: Console) -> dict[str, Any]:
    """Run the test and print losses and suggestion; returns the `--json` keys."""
    if command.resume or command.out is not None:
        raise ConfigError("--find-lr writes no run; drop --resume and --out.")
    if not command.data:
        raise ConfigError("pretrain needs data; name files or folders with --data.")
    with tempfile.TemporaryDirectory() as folder:
        run = StageRun(
            recipe=recipe,
            out=Path(folder),
            device=pick_device(command.device),
            callbacks=(),
            notify=console.print,
            progress=work_progress(console),
        )
        points = find_learning_rate(run)
    for point in points[9::10]:
        print(f"learning rate {point.learning_rate:.2g}: loss {point.loss:.4f}")
    suggested = suggested_rate(points)
    print(
        f"suggested: --learning-rate {suggested:.1g}, a tenth of the rate at which the average loss was lowest"
        + (f"; the test ended at {points[-1].learning_rate:.2g}" if len(points) < N_STEPS else "")
    )
    return {"learning_rate": suggested, "points": [dataclasses.asdict(point) for point in points]}
