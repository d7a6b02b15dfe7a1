"""`scratchlm runs rm`: delete runs after confirmation."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.atomic_replace import remove_folder
from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import run_lock, running_process
from scratchlm.reports.formats import file_size
from scratchlm.reports.found_runs import FoundRun, find_runs, look_at_run


@dataclass(frozen=True, kw_only=True)
class RunsRm(Common):
    """Delete runs of the runs folder with their checkpoints, after confirmation or with --yes.

    Links, runs that are in use, and folders that are not runs are never deleted.

    Example: scratchlm runs rm first-try second-try
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # names of runs in the runs folder
    yes: bool = False  # delete without confirmation
    runs_dir: Path = Path("runs")  # the folder with the runs


@command_line(RunsRm)
def main(command: RunsRm, console: Console) -> dict[str, Any]:
    """Check all runs, confirm once, and delete them; returns the `--json` keys."""
    if not command.runs:
        raise ConfigError("runs rm needs the name of a run; `scratchlm runs list` shows all runs.")
    runs = [_deletable(name, command.runs_dir) for name in dict.fromkeys(command.runs)]
    size = file_size(sum(run.size_bytes for run in runs))
    bases = _built_on(runs, command.runs_dir)
    for line in bases:
        console.print(f"scratchlm: {line}")
    if not command.yes:
        if command.json or not sys.stdin.isatty():
            raise ConfigError(
                f"deleting {len(runs)} runs ({size}) needs a confirmation, and there is no terminal; add --yes."
            )
        console.print(f"Delete {', '.join(str(run.path) for run in runs)} ({size})? [y/N] ", end="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was deleted.")
            return {"deleted": [], "size_bytes": 0}
    for run in runs:
        _delete(run.path)
        print(f"deleted {run.path}")
    return {"deleted": [str(run.path) for run in runs], "size_bytes": sum(run.size_bytes for run in runs)}


def _deletable(name: str, runs_dir: Path) -> FoundRun:
    """The run of that name; ConfigError when it is not a run, is elsewhere, is a link, or is in use."""
    path = Path(name) if Path(name).parent != Path() else runs_dir / name
    if path.is_symlink():
        raise ConfigError(f"{path} is a link, not a run folder; delete the link yourself.")
    if not path.is_dir():
        raise ConfigError(
            f"{path} {'is a file, not a run folder' if path.exists() else 'does not exist'}; "
            "`scratchlm runs list` shows all runs."
        )
    if path.resolve().parent != runs_dir.resolve():
        raise ConfigError(
            f"{path} is not in {runs_dir} but in {path.resolve().parent}; name that folder with --runs-dir."
        )
    run = look_at_run(path)
    if run.state == "foreign":
        raise ConfigError(f"{path} is {run.problem}; delete it yourself.")
    if run.state == "running":
        raise ConfigError(f"{path} is in use by process {running_process(path)}; stop it first.")
    return run


def _built_on(runs: Sequence[FoundRun], runs_dir: Path) -> list[str]:
    """Warnings about other runs that started from a run to be deleted."""
    deleted = {run.path.resolve() for run in runs}
    warnings = []
    for other in find_runs(runs_dir):
        base = other.settings.get("base")
        if other.path.resolve() in deleted or not isinstance(base, str):
            continue
        of = {Path(base).resolve(), *Path(base).resolve().parents} & deleted
        warnings += [
            f"{other.path} started from {path} and cannot be resumed without it"
            for path in of
            if other.state != "complete"
        ]
    return warnings


def _delete(path: Path) -> None:
    """Delete a folder atomically, including links in it but not their targets."""
    try:
        with run_lock(path):
            remove_folder(path)
    except OSError as cause:
        raise ConfigError(f"{path} could not be deleted: {cause.strerror}; check who owns it.") from cause
