"""Code shared by the `finetune` commands: flags, resuming, running the stage, and printing its result."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, TypeVar, cast

import tyro
from rich.console import Console

from scratchlm.cli.arguments import value_of
from scratchlm.cli.parsing import Main, run_command
from scratchlm.cli.run import without_lists
from scratchlm.cli.stage_runs import StageFlags, resumed_recipe, run_stage, with_end
from scratchlm.core.errors import ConfigError
from scratchlm.data.row_files import ANSWERED, LABELLED, RowSettings
from scratchlm.finetuning.base import RANDOM
from scratchlm.finetuning.settings import FineTuningSettings
from scratchlm.recipes.recipe import STAGE_DATA, DataSettings, Recipe, Stage
from scratchlm.recipes.run import RunResult


@dataclass(frozen=True, kw_only=True)
class FineTuning(StageFlags):
    """The flags of every kind of fine-tuning; its training settings follow as `settings`."""

    base: str | None = None  # base model: a folder, or random:SIZE for random weights
    data: tuple[str, ...] = ()  # files, folders or globs of examples, or a known name
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)


F = TypeVar("F", bound=FineTuning)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How one kind of fine-tuning differs from the others on the command line."""

    stage: Stage
    name: str  # name in messages
    example: str  # example of a suitable base
    epochs: float  # number trained without max_steps, epochs or max_minutes
    lines: Callable[[RunResult], list[str]]  # prints the result
    random_base_settings: FineTuningSettings | None = None  # defaults for random:SIZE


def finetuning_command(cls: type[F], kind: Kind) -> Main:
    """The `main` of a command that runs a stage; with --resume the defaults are the settings of that run.

    It raises ConfigError without a base, and what `run_stage` raises.
    """

    def action(command: F, console: Console) -> dict[str, Any]:
        result = run_stage(kind.stage, _recipe(command, kind), command, console)
        print("\n".join(kind.lines(result)))
        figures = without_lists(result.figures[kind.stage])
        return {"out": str(result.out), "report": str(result.report), **figures}

    def main(args: Sequence[str], *, prog: str) -> int:
        return run_command(cls, action, args, prog=prog, default=_defaults(cls, kind, list(args)))

    return main


def _defaults(cls: type[F], kind: Kind, args: list[str]) -> F:
    earlier = resumed_recipe(kind.stage, args)
    default: Any = cls()
    if earlier is not None:
        default = replace(
            default,
            base=earlier.base,
            data=getattr(earlier.data, STAGE_DATA[kind.stage]),
            rows=RowSettings(**{f.name: getattr(earlier.data, f.name) for f in fields(RowSettings)}),
            settings=getattr(earlier, kind.stage),
        )
    elif kind.random_base_settings and (value_of("--base", args) or "").startswith(RANDOM):
        default = replace(default, settings=kind.random_base_settings)
    return cast(F, default)


def _recipe(command: FineTuning, kind: Kind) -> Recipe:
    if command.base is None:
        raise ConfigError(f"{kind.name} needs a base model; name one with --base (e.g. {kind.example}).")
    used = LABELLED if kind.stage == "classify" else ANSWERED
    if command.rows != command.rows.only(*used):
        raise ConfigError(
            f"columns of {kind.name} must be among {', '.join(used)}, got "
            f"{', '.join(sorted(set(command.rows.renamed) - set(used)))}; drop the flag."
        )
    data: dict[str, Any] = {STAGE_DATA[kind.stage]: command.data, **asdict(command.rows)}
    settings: FineTuningSettings = command.settings  # type: ignore[attr-defined]
    own: dict[str, Any] = {kind.stage: with_end(settings, epochs=kind.epochs)}
    return Recipe(stages=(kind.stage,), base=command.base, data=DataSettings(**data), **own)
