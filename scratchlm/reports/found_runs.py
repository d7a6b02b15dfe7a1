"""Find run folders and their state: complete, interrupted, running, damaged, or not a run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from scratchlm.checkpoints.store import list_checkpoints
from scratchlm.core.atomic_replace import PARTIAL_MARK
from scratchlm.core.errors import ConfigError, DataError, ScratchLMError
from scratchlm.core.files import read_json
from scratchlm.core.json_table import JSONTable
from scratchlm.core.run_lock import running_process
from scratchlm.recipes.recipe import STAGE_DATA, recipe_values
from scratchlm.recipes.stages import stage_folder

State: TypeAlias = Literal["complete", "interrupted", "running", "damaged", "foreign"]
STAGES = list(STAGE_DATA)  # a list, since a table from a damaged file cannot be looked up in a dictionary
TAIL_BYTES = 1 << 16  # of metrics.jsonl, to find its last line without reading all of it


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A folder in the runs folder, described without opening its models."""

    path: Path
    state: State
    problem: str = ""  # the reason why it is damaged or foreign
    stages: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # the recipe's plain values
    figures: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # of the completed stages
    step: int | None = None  # the last recorded step of the last started stage
    size_bytes: int = 0
    changed_at: float = 0.0  # seconds since 1970

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name or str(self.path)

    @property
    def is_run(self) -> bool:
        """Whether it is a run that can be shown."""
        return self.state in ("complete", "interrupted", "running")

    @property
    def what(self) -> str:
        """The command that created it."""
        if len(self.stages) == 1:
            return "pretrain" if self.stages[0] == "pretrain" else f"finetune {self.stages[0]}"
        return f"run ({', '.join(self.stages)})" if self.stages else ""

    def folder(self, stage: str) -> Path:
        """The folder of a stage's checkpoints."""
        return stage_folder(self.path, stage, self.stages)  # type: ignore[arg-type]

    def checkpoints(self) -> list[Path]:
        """All checkpoint folders, stage by stage, oldest first."""
        folders = dict.fromkeys(self.folder(stage) for stage in self.stages)
        return [checkpoint for folder in folders for checkpoint in list_checkpoints(folder)]


def find_runs(runs_dir: Path) -> list[FoundRun]:
    """Every folder in a runs folder by name, without hidden ones.

    Raises: ConfigError when there is no such folder.
    """
    if not runs_dir.is_dir():
        raise ConfigError(
            f"the runs folder {runs_dir} {'is a file' if runs_dir.exists() else 'does not exist'}; name another with "
            "--runs-dir."
        )
    folders = [path for path in runs_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return [look_at_run(path) for path in sorted(folders)]


def look_at_run(path: Path) -> FoundRun:
    """Describe a folder; one that is damaged or not a run is described as such, without an error."""
    if not (path / "recipe.toml").is_file():
        problem = "not a run: recipe.toml is missing"
        return FoundRun(path=path, state="foreign", problem=problem, **_on_disk(path))
    try:
        _, settings = recipe_values(str(path))
        stages = _stages(settings)
        JSONTable(settings.get("data", {}), where=f"data in {path / 'recipe.toml'}")
        figures = {stage: _figures(path, stage) for stage in stages}
        folders = [stage_folder(path, stage, stages) for stage in reversed(stages)]  # type: ignore[arg-type]
        steps = (_last_step(folder / "metrics.jsonl") for folder in folders)
        step = next((step for step in steps if step is not None), None)
    except ScratchLMError as error:
        return FoundRun(path=path, state="damaged", problem=str(error), **_on_disk(path))
    ended = {stage: found for stage, found in figures.items() if found is not None}
    run = FoundRun(
        path=path, state="interrupted", stages=stages, settings=settings, figures=ended, step=step, **_on_disk(path)
    )  # fmt: skip
    return replace(run, state=_state(run))


def the_run(name: str, runs_dir: Path = Path("runs")) -> FoundRun:
    """The run of that path, or of that name in the runs folder.

    Raises: ConfigError when there is none, or it is damaged or foreign.
    """
    path = Path(name)
    if not path.exists() and (runs_dir / name).exists():
        path = runs_dir / name
    if not path.is_dir():
        problem = "is a file, not a run folder" if path.exists() else "does not exist"
        raise ConfigError(
            f"the run {name} {problem}; `scratchlm runs list --runs-dir {runs_dir}` shows all runs."
        )
    run = look_at_run(path)
    if not run.is_run:
        problem = f"damaged: {run.problem.rstrip('.')}" if run.state == "damaged" else run.problem
        raise ConfigError(f"{path} is {problem}; name another run.")
    return run


def _state(run: FoundRun) -> State:
    if running_process(run.path) is not None:
        return "running"
    is_complete = all(stage in run.figures and list_checkpoints(run.folder(stage)) for stage in run.stages)
    return "complete" if is_complete else "interrupted"


def _stages(settings: Mapping[str, Any]) -> tuple[str, ...]:
    stages = settings.get("stages", STAGES[:3])
    if not isinstance(stages, list) or not stages or not all(stage in STAGES for stage in stages):
        raise DataError(f"stages must be a list of {', '.join(STAGES)}, got {stages!r}; repair recipe.toml.")
    return tuple(stages)


def _figures(path: Path, stage: str) -> dict[str, Any] | None:
    """The results of a stage; None while it is not complete."""
    file = path / "figures" / f"{stage}.json"
    if not file.exists():
        return None
    figures = read_json(file, max_bytes=None)
    if not isinstance(figures, dict):
        raise DataError(f"{file} must be a JSON object, got {type(figures).__name__}; run the stage again.")
    return figures


def _last_step(file: Path) -> int | None:
    """The step of the last complete record of a history."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        lines = stream.read().decode("utf-8", errors="replace").split("\n")
    for line in reversed(lines[:-1]):  # after the last line end there is an incomplete line, or nothing
        try:
            step = json.loads(line.strip("\0")).get("step")
        except (ValueError, AttributeError, RecursionError):
            continue  # left by a killed process
        if isinstance(step, int):
            return step
    return None


def _on_disk(path: Path) -> dict[str, Any]:
    """A folder's size and the time of its last change; links are not followed."""
    size, changed = 0, path.lstat().st_mtime
    for folder, _, names in os.walk(path, followlinks=False):
        for name in names:
            try:
                facts = os.lstat(os.path.join(folder, name))  # noqa: PTH118  (thousands of files)
            except OSError:  # a checkpoint that is being replaced
                continue
            size += facts.st_size
            if PARTIAL_MARK not in name:
                changed = max(changed, facts.st_mtime)
    return {"size_bytes": size, "changed_at": changed}
