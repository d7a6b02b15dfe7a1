"""`scratchlm runs show`: show the settings, results and checkpoints of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.checkpoints.store import verify
from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.run import without_lists
from scratchlm.cli.runs_list import run_record
from scratchlm.cli.terminal import print_columns
from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.reports.comparison_data import run_data
from scratchlm.reports.comparison_page import figure_rows, setting_rows
from scratchlm.reports.formats import decimal, file_size, setting
from scratchlm.reports.found_runs import FoundRun, the_run


@dataclass(frozen=True, kw_only=True)
class RunsShow(Common):
    """Show one run: its settings, its results, and whether its checkpoints are intact.

    Example: scratchlm runs show quickstart
    """

    run: Annotated[str | None, tyro.conf.Positional] = None  # a run folder, or its name in the runs folder
    runs_dir: Path = Path("runs")  # the folder with the runs


@command_line(RunsShow)
def main(command: RunsShow, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Read the run, verify its checkpoints, and print; returns the `--json` keys."""
    if command.run is None:
        raise ConfigError("runs show needs a run; `scratchlm runs list` shows all runs.")
    run = the_run(command.run, command.runs_dir)
    checkpoints = [_checked(folder) for folder in run.checkpoints()]
    _print(run, checkpoints)
    return {
        **run_record(run),
        "settings": dict(run.settings),
        "figures": {stage: without_lists(figures) for stage, figures in run.figures.items()},
        "checkpoints": checkpoints,
    }


def _checked(folder: Path) -> dict[str, Any]:
    """Describe a checkpoint, and whether its files match its manifest."""
    manifest, problem = {}, ""
    try:
        manifest = verify(folder)
    except CheckpointError as error:
        problem = str(error)
    facts = {key: manifest.get(key) for key in ("step", "val_loss")}
    return {"path": str(folder), "is_good": not problem, "problem": problem, **facts}


def _print(run: FoundRun, checkpoints: Sequence[dict[str, Any]]) -> None:
    data = run_data(run)
    print(f"{run.path}: {run.what}, {run.state}, {file_size(run.size_bytes)}")
    figures = figure_rows([data])
    if figures:
        print("\nfigures")
        cells = [(row.name, row.cells[0]) for row in figures]
        print_columns([[name, c.value, c.interval, f"over {c.over}"] for name, c in cells if c], indent="  ")
    print("\ncheckpoints")
    for one in checkpoints:
        loss = f", validation loss {decimal(one['val_loss'], 4)}" if one["val_loss"] is not None else ""
        print(f"  {one['path']}: {f'intact{loss}' if one['is_good'] else one['problem']}")
    if not checkpoints:
        print("  none")
    print("\nsettings")
    print_columns([[row.name, setting(row.values[0])] for row in setting_rows([data])], indent="  ")
