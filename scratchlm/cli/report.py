"""`scratchlm report`: write a report of one run, or a comparison of several."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError
from scratchlm.reports.comparison_data import find_source
from scratchlm.reports.write_report import Format, PlotFormat, write_report


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """Write a report of one run, or a comparison of several: a self-contained page, JSON and CSV tables.

    RUN is a run folder, the name of one in the runs folder, or a file of answers, written by `scratchlm
    evaluate judge --out` or in the book's format.

    Example: scratchlm report runs/small runs/wider --out reports/width --plots png svg
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()  # runs or files of answers
    out: Path | None = None  # the report's folder; default: reports/ and the names of the runs
    format: tuple[Format, ...] = ("html", "json", "csv")  # file formats of the report
    plots: tuple[PlotFormat, ...] = ()  # also write each plot as a file: png, svg or both
    runs_dir: Path = Path("runs")  # the folder in which runs are found by name


@command_line(Report)
def main(command: Report, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Write the report and print its path; returns the `--json` keys."""
    if not command.runs:
        raise ConfigError(
            "report needs at least one run; name run folders or files of answers, e.g. runs/quickstart."
        )
    sources = [find_source(name, command.runs_dir) for name in command.runs]
    names = [source.path.resolve().name.removesuffix(source.path.suffix) for source in sources]
    out = command.out or Path("reports") / re.sub(r"[^\w.+-]", "_", "+".join(names))[:100]
    written = write_report(
        sources, out, formats=command.format, plots=command.plots, device=pick_device(command.device)
    )
    paired = written.comparison.paired
    items = f", {len(paired.items):,} items" if paired.items else ""
    print(
        f"{len(sources)} {'run' if len(sources) == 1 else 'runs'}{items}: {len(written.files)} files in {out}"
    )
    for file in written.files:
        if file.name == "report.html":
            print(f"page: {file}")
    return {
        "out": str(out),
        "runs": [run["label"] for run in written.comparison.data["runs"]],
        "items": len(written.comparison.paired.items),
        "shared_items": written.comparison.paired.n_shared,
        "files": [str(file) for file in written.files],
    }
