"""Write a report into a folder: the HTML page, its data as JSON, tables as CSV, and plots as files."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from scratchlm.checkpoints.store import MANIFEST
from scratchlm.core.atomic_replace import PARTIAL_MARK
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import as_json, make_parent, new_folder, write_text
from scratchlm.core.json_table import read_json_table
from scratchlm.core.printable import csv_cell
from scratchlm.recipes.recipe import load_recipe
from scratchlm.reports.canvas import Drawing
from scratchlm.reports.comparison_data import Comparison, Source, collect
from scratchlm.reports.comparison_page import (
    comparison_drawings,
    figure_rows,
    render_comparison,
    setting_rows,
)
from scratchlm.reports.found_runs import FoundRun
from scratchlm.reports.paired_items import Paired
from scratchlm.reports.run_data import CURVES, report_data
from scratchlm.reports.run_page import render_report, report_drawings

Format: TypeAlias = Literal["html", "json", "csv"]
PlotFormat: TypeAlias = Literal["png", "svg"]
Table: TypeAlias = tuple[Sequence[str], list[list[Any]]]  # names of the columns, and rows
REPORT_FILES = {"report.html", "report.json", "tables", "plots"}


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """The files of a report."""

    files: list[Path]
    comparison: Comparison


def write_report(
    sources: Sequence[Source],
    out: Path,
    *,
    formats: Sequence[Format] = ("html", "json", "csv"),
    plots: Sequence[PlotFormat] = (),
    device: torch.device | None = None,
) -> WrittenReport:
    """Write a report of one or several sources into a folder; an earlier report there is replaced.

    One run gets the full report, as after `scratchlm run`; several are compared.
    Raises: ConfigError when the folder holds other files; DataError for a damaged run or a full disk.
    """
    _check_folder(out)
    comparison = collect(sources)
    alone = sources[0] if len(sources) == 1 and isinstance(sources[0], FoundRun) else None
    report = None if alone is None else whole_run(alone, device or torch.device("cpu"))
    files: list[Path] = []
    make_parent(out / "report.html", error=ConfigError)
    if "html" in formats:
        if report is not None:
            page = render_report(report, comparison.paired)
        else:
            page = render_comparison(comparison.data, comparison.paired)
        files.append(_written(out / "report.html", page))
    if "json" in formats:
        content = {
            "format": "scratchlm report 1",
            **(comparison.data if report is None else {**comparison.data, "report": report}),
            "items": [asdict(item) for item in comparison.paired.items],
            "differences": [asdict(one) for one in comparison.paired.differences],
        }
        files.append(_written(out / "report.json", as_json(plain(content))))
    if "csv" in formats:
        with new_folder(out / "tables") as folder:
            for name, table in tables(comparison).items():
                _written(folder / f"{name}.csv", as_csv(table))
        files += sorted((out / "tables").iterdir())
    if plots:
        drawings = comparison_drawings(comparison.data["runs"]) if report is None else report_drawings(report)
        files += _write_plots(drawings, out / "plots", plots)
    return WrittenReport(files=files, comparison=comparison)


def whole_run(run: FoundRun, device: torch.device) -> dict[str, Any]:
    """The data of a single run's report, computed from its folder as at the end of the run.

    Machine and versions are those recorded in the run's checkpoint, since this machine may be a different one.
    """
    name, recipe = load_recipe(str(run.path))
    figures = {stage: run.figures[stage] for stage in recipe.stages if stage in run.figures}
    report = report_data(name, recipe, run.path, figures, device=device)
    del report["machine"], report["versions"]
    ends = [str(found["finished_at"]) for found in figures.values() if found.get("finished_at")]
    if ends:
        report["created_at"] = max(ends)
    checkpoints = run.checkpoints()
    if checkpoints:
        manifest = read_json_table(checkpoints[-1] / MANIFEST)
        report["machine"] = {"device": manifest.get("device", str)}
        report["versions"] = manifest.get("versions", dict, {})
    return report


def tables(comparison: Comparison) -> dict[str, Table]:
    """The tables of a comparison by name; tables without rows are left out."""
    runs, paired = comparison.data["runs"], comparison.paired
    labels = [str(run["label"]) for run in runs]
    figures = [
        [row.name, label, cell.value, cell.interval, cell.over]
        for row in figure_rows(runs)
        for label, cell in zip(labels, row.cells)
        if cell is not None
    ]
    settings = [[row.name, row.differs, *row.values] for row in setting_rows(runs)]
    differences = [[d.one, d.other, d.score_name, d.n, d.mean, d.low, d.high] for d in paired.differences]
    samples = [
        [run["label"], sample.get("step"), sample.get("prompt"), sample.get("text")]
        for run in runs
        for sample in (run.get("pretrain") or {}).get("samples") or []
    ]
    found: dict[str, Table] = {
        "figures": (("figure", "run", "value", "interval", "over"), figures),
        "settings": (("setting", "differs", *labels), settings),
        "curves": _curves(runs),
        "samples": (("run", "step", "prompt", "text"), samples),
        "items": _items(paired),
        "differences": (("one", "other", "score", "n", "difference", "low", "high"), differences),
    }
    return {name: table for name, table in found.items() if table[1]}


def as_csv(table: Table) -> str:
    """A table as CSV text. Text that a spreadsheet would read as a formula gets an apostrophe before it.

    Example:
        >>> as_csv((("a", "b"), [[1, "=SUM(A1)"], [-2.5, None]]))
        "a,b\\n1,'=SUM(A1)\\n-2.5,\\n"
    """
    names, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def plain(value: Any) -> Any:
    """Convert a value to plain JSON types: tuples to lists, non-finite numbers to None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cell(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    return csv_cell(value)


def _curves(runs: Iterable[Mapping[str, Any]]) -> Table:
    rows = [
        [run["label"], stage, row["step"], *(row.get(key) for key in CURVES)]
        for run in runs
        for stage in run.get("stages_planned") or ()
        for row in run[stage]["history"]
    ]
    return ("run", "stage", "step", *CURVES), rows


def _items(paired: Paired) -> Table:
    names = ["instruction", "input", "reference", "skill", "difference"]
    for column in paired.columns:
        columns = ("answer", column.score_name, "status", "judge's words")
        names += [f"{column.label}: {what}" for what in columns]
    rows = []
    for item in paired.items:
        row: list[Any] = [item.instruction, item.input, item.reference, item.skill, item.spread]
        for answer in item.answers:
            row += [None] * 4 if answer is None else [answer.text, answer.score, answer.status, answer.words]
        rows.append(row)
    return names, rows


def _write_plots(drawings: Sequence[Drawing], out: Path, formats: Sequence[PlotFormat]) -> list[Path]:
    with new_folder(out) as folder:
        for drawing in drawings:
            for kind in formats:
                drawing.save(folder / f"{drawing.name}.{kind}")
    return sorted(out.iterdir())


def _written(path: Path, text: str) -> Path:
    # A lone surrogate, which UTF-8 cannot encode, becomes a question mark.
    write_text(path, text.encode("utf-8", errors="replace").decode("utf-8"))
    return path


def _check_folder(out: Path) -> None:
    if out.is_file():
        raise ConfigError(f"{out} is a file, and a report is a folder; choose another --out.")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [name for name in names if name not in REPORT_FILES and PARTIAL_MARK not in name]
    if others:
        raise ConfigError(
            f"{out} already holds other files ({', '.join(others[:3])}); choose a new or empty folder with --out."
        )
