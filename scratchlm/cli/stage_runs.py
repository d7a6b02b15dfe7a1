"""Code shared by `pretrain` and the `finetune` commands: each runs one stage."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro
from rich.console import Console

from scratchlm.cli.arguments import value_of
from scratchlm.cli.run import RunFlags, choose_threads, execute
from scratchlm.core.errors import ConfigError
from scratchlm.core.launch import is_follower, is_restart, launched_ranks
from scratchlm.recipes.recipe import STAGE_DATA, Recipe, Stage, load_recipe
from scratchlm.recipes.run import RunResult
from scratchlm.training.config import TrainingConfig
from scratchlm.training.settings import ModelSettings, SizeName

T = TypeVar("T", bound=TrainingConfig)
RUNS_DIR = Path("runs")


@dataclass(frozen=True, kw_only=True)
class StageFlags(RunFlags):
    """The flags of every command that is a run of one stage."""

    resume: bool = False  # continue an interrupted run with its own settings
    seed: tyro.conf.Suppress[None] = None  # it is part of the training settings


def run_stage(kind: Stage, recipe: Recipe, flags: StageFlags, console: Console) -> RunResult:
    """Run a one-stage recipe in `--out`, or in the next free `runs/KIND`, `runs/KIND-2`, ...

    Raises: ConfigError without data, and when `out` holds a run already without --resume or --fresh.
    """
    if flags.out is None and launched_ranks() is not None:
        raise ConfigError("processes that train together need the same run folder; name it with --out.")
    folder = flags.out or (newest_run(kind) if flags.resume else free_run(kind))
    if not getattr(recipe.data, STAGE_DATA[kind]):
        raise ConfigError(f"{kind} needs data; name files or folders with --data.")
    base = recipe.base
    if flags.fresh and base is not None and Path(base).resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--fresh would delete {folder} with the base {base} in it; choose another --out.")
    if flags.resume:
        _check_resumable(folder)
    elif not (flags.fresh or is_restart() or is_follower()) and (folder / "recipe.toml").exists():
        raise ConfigError(
            f"{folder} already holds a run; add --resume to continue it, --fresh to start over, or choose another "
            "--out."
        )
    choose_threads(recipe, folder, flags, console)
    return execute(kind, recipe, folder, flags, console, extend=flags.resume)


def resumed_recipe(kind: str, args: list[str]) -> Recipe | None:
    """Load the recipe of the run that --resume continues, before parsing: it gives the flags' defaults."""
    if "--resume" not in args:
        return None
    if value_of("--recipe", args) is not None:
        raise ConfigError("--resume continues a run with its own settings; drop --recipe.")
    out = value_of("--out", args)
    folder = Path(out) if out else newest_run(kind)
    _check_resumable(folder)
    return load_recipe(str(folder / "recipe.toml"))[1]


def recipe_argument(args: list[str]) -> Recipe | None:
    """Load the recipe named with `--recipe`, before parsing: it gives the flags' defaults."""
    name = value_of("--recipe", args)
    return None if name is None else load_recipe(name)[1]


def with_end(config: T, **end: float) -> T:
    """Set this limit of training in the settings, unless they have one."""
    return config if config.has_end else dataclasses.replace(config, **end)  # type: ignore[arg-type]


def free_run(kind: str, runs_dir: Path = RUNS_DIR) -> Path:
    """The first of `runs/KIND`, `runs/KIND-2`, ... that does not exist."""
    return next(folder for folder in _run_folders(kind, runs_dir) if not folder.exists())


def newest_run(kind: str) -> Path:
    """The last of `runs/KIND`, `runs/KIND-2`, ... that exists; `runs/KIND` if none does."""
    existing = list(itertools.takewhile(Path.exists, _run_folders(kind)))
    return existing[-1] if existing else RUNS_DIR / kind


def _run_folders(kind: str, runs_dir: Path = RUNS_DIR) -> Iterator[Path]:
    names = itertools.chain([kind], (f"{kind}-{number}" for number in itertools.count(2)))
    return (runs_dir / name for name in names)


def _check_resumable(folder: Path) -> None:
    if not (folder / "recipe.toml").exists():
        raise ConfigError(f"there is no run to resume in {folder}; name the run's folder with --out.")


def with_size(model: ModelSettings, config: SizeName | None, args: Sequence[str]) -> ModelSettings:
    """Apply `--config NAME`, which is short for `--model.size NAME`.

    Raises: ConfigError when both flags are given.
    """
    if config is None:
        return model
    if (size := value_of("--model.size", args)) is not None:
        raise ConfigError(
            f"--config is short for --model.size, got --config {config} and --model.size {size}; drop one."
        )
    return dataclasses.replace(model, size=config)
