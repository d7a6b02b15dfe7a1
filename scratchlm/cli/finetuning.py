"""What the `finetune` commands share: their first flags, resuming, and a recipe of one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, TypeVar

import tyro
from rich.console import Console

from scratchlm.cli.arguments import value_of
from scratchlm.cli.parsing import run_command
from scratchlm.cli.run import without_lists
from scratchlm.cli.stage_runs import DATA, RunFlags, resumed_recipe, run_stage, with_end
from scratchlm.core.errors import ConfigError
from scratchlm.data.row_files import ANSWERED, LABELLED, RowSettings
from scratchlm.finetuning.base import RANDOM
from scratchlm.recipes.recipe import DataSettings, Recipe, Stage
from scratchlm.recipes.run import RunResult
from scratchlm.training.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class FineTuning(RunFlags):
    """Flags that every way of fine-tuning has; its own training settings come after them, as `settings`."""

    base: str | None = None  # the model to start from: a folder, or random:SIZE for fresh weights
    data: tuple[str, ...] = ()  # files, folders or globs of examples, or a known name
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)


F = TypeVar("F", bound=FineTuning)


def finetuning_command(
    cls: type[F],
    stage: Stage,
    action: Callable[[F, Console], dict[str, Any]],
    args: Sequence[str],
    *,
    prog: str,
    fresh: TrainingConfig | None = None,
) -> int:
    """Parse and act; a run to be resumed gives the defaults, and `fresh` those for a base of random weights."""
    earlier = resumed_recipe(stage, list(args))
    default = cls()
    if fresh is not None and (value_of("--base", list(args)) or "").startswith(RANDOM):
        settings: dict[str, Any] = {"settings": fresh}
        default = cls(**settings)
    if earlier is not None:
        kept = {
            "base": earlier.base,
            "data": getattr(earlier.data, DATA[stage]),
            "rows": RowSettings(**{f.name: getattr(earlier.data, f.name) for f in fields(RowSettings)}),
            "settings": getattr(earlier, stage),
        }
        default = cls(**kept)
    return run_command(cls, action, args, prog=prog, default=default)


def run_finetuning(
    command: FineTuning,
    stage: Stage,
    settings: TrainingConfig,
    console: Console,
    *,
    epochs: float,
    who: str,
    example: str,
) -> RunResult:
    """Run the one stage; `who` needs a base such as `example`, and trains so many epochs unless told otherwise.

    Raises: ConfigError without a base; what `run_stage` raises.
    """
    if command.base is None:
        raise ConfigError(f"{who} needs a base model, found none; name it with --base (e.g. {example}).")
    used = LABELLED if stage == "classify" else ANSWERED
    if command.rows != command.rows.only(*used):
        raise ConfigError(
            f"columns of {who} must be among {', '.join(used)}, got "
            f"{', '.join(sorted(set(command.rows.renamed) - set(used)))}; drop the flag."
        )
    data: dict[str, Any] = {DATA[stage]: command.data, **asdict(command.rows)}
    own: dict[str, Any] = {stage: with_end(settings, epochs=epochs)}
    recipe = Recipe(stages=(stage,), base=command.base, data=DataSettings(**data), **own)
    return run_stage(stage, recipe, command, console)


def stage_json(result: RunResult, stage: Stage) -> dict[str, Any]:
    """The `--json` keys: where the run and its report lie, and the stage's figures."""
    return {"out": str(result.out), "report": str(result.report), **without_lists(result.figures[stage])}
