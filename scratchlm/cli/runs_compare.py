"""`scratchlm runs compare`: compare results and settings of runs in the terminal."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.cli.terminal import print_columns
from scratchlm.core.errors import ConfigError
from scratchlm.reports.comparison_data import collect, find_source
from scratchlm.reports.comparison_page import figure_rows, setting_rows
from scratchlm.reports.figures import Claim
from scratchlm.reports.formats import MISSING, setting
from scratchlm.reports.paired_items import Difference


@dataclass(frozen=True, kw_only=True)
class RunsCompare(Common):
    """Compare runs in the terminal: results with intervals, answers to the same items, settings that differ.

    `scratchlm report` shows the same and more on a page.

    Example: scratchlm runs compare small wider
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # run folders or names, or files of answers
    all_settings: bool = False  # also show settings that are the same
    runs_dir: Path = Path("runs")  # the folder with the runs


@command_line(RunsCompare)
def main(command: RunsCompare, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Compare the runs and print the result; returns the `--json` keys."""
    if len(command.runs) < 2:
        raise ConfigError(f"runs compare needs at least two runs, got {len(command.runs)}; name another.")
    comparison = collect([find_source(name, command.runs_dir) for name in command.runs])
    runs = comparison.data["runs"]
    labels = [str(run["label"]) for run in runs]
    figures, settings = figure_rows(runs), setting_rows(runs)
    between = comparison.paired.differences
    shown = [row for row in settings if row.differs or command.all_settings]
    print_columns([["", *labels], *([row.name, *map(_cell, row.cells)] for row in figures)])
    for one in between:
        print(_sentence(one))
    if settings:  # files of answers have none
        print(f"\n{_settings_heading(len(shown), len(settings), command)}")
    if shown:
        print_columns([["", *labels], *([row.name, *map(_value, row.values)] for row in shown)])
    return {
        "runs": [{key: run.get(key) for key in ("label", "path", "what", "state")} for run in runs],
        "figures": [
            {"name": row.name, "cells": [None if cell is None else asdict(cell) for cell in row.cells]}
            for row in figures
        ],
        "differences": [asdict(one) for one in between],
        "settings": [asdict(row) for row in shown],
    }


def _settings_heading(n_shown: int, n: int, command: RunsCompare) -> str:
    if command.all_settings:
        return "settings"
    return f"settings that differ ({n - n_shown} do not)" if n_shown else f"none of {n} settings differs"


def _cell(claim: Claim | None) -> str:
    if claim is None:
        return MISSING
    return f"{claim.value} [{claim.interval}]" if claim.interval else claim.value


def _value(value: Any) -> str:
    return MISSING if value is None else setting(value)


def _sentence(one: Difference) -> str:
    better = one.one if one.mean > 0 else one.other
    verdict = f"{better} scores higher" if one.is_clear else "they do not differ significantly"
    return (
        f"{one.one} - {one.other}: {one.mean:+.3g} ({one.low:+.3g} to {one.high:+.3g}) in {one.score_name} "
        f"over {one.n:,} items that both answered: {verdict}"
    )
