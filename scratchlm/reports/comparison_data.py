"""Runs and judged answers collected for a report: what stands beside each other, under which name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

from scratchlm import __version__
from scratchlm.core.errors import ConfigError
from scratchlm.core.json_table import JSONTable
from scratchlm.recipes.recipe import SAMPLES
from scratchlm.reports.answer_columns import AnswerFile, read_answer_file
from scratchlm.reports.found_runs import FoundRun, the_run
from scratchlm.reports.paired_items import Column, Paired, pair_items
from scratchlm.reports.run_data import curves
from scratchlm.training.history import History

Source: TypeAlias = FoundRun | AnswerFile
ANSWERING = ("instruct", "prefer")  # stages that leave answers behind


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several sources ready to be shown: plain values, and the answers item by item."""

    data: dict[str, Any]
    paired: Paired


def find_source(name: str, runs_dir: Path = Path("runs")) -> Source:
    """A run folder, a run's name in the runs folder, or a file of answers (judged or not).

    Raises: ConfigError for what is none of them; DataError for a damaged file.
    """
    path = Path(name)
    return read_answer_file(path) if path.is_file() else the_run(name, runs_dir)


def collect(sources: Sequence[Source]) -> Comparison:
    """Everything that the comparison shows of its sources.

    Raises: ConfigError for a source named twice; DataError for a damaged history or file of answers.
    """
    labels = _labels(sources)
    runs: list[dict[str, Any]] = []
    columns: list[Column] = []
    for number, (label, source) in enumerate(zip(labels, sources)):
        runs.append({"label": label, **_told(source)})
        columns += answer_columns(source, label, run=number)
    data = {
        "title": _title(labels),
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"scratchlm": __version__},
        "runs": runs,
    }
    return Comparison(data=data, paired=pair_items(columns))


def answer_columns(source: Source, label: str, *, run: int = 0) -> list[Column]:
    """The answers of a source: those of a file, or of every stage of a run that leaves some."""
    if isinstance(source, AnswerFile):
        return [source.column(label, run=run)]
    files = {stage: source.folder(stage) / "answers.jsonl" for stage in ANSWERING if stage in source.stages}
    there = {stage: file for stage, file in files.items() if file.is_file() and file.stat().st_size}
    return [
        read_answer_file(file).column(label if len(there) == 1 else f"{label} ({stage})", run=run)
        for stage, file in there.items()
    ]


def _told(source: Source) -> dict[str, Any]:
    if isinstance(source, AnswerFile):
        what = f"answers scored by {source.judge}" if source.is_judged else "answers"
        return {"path": str(source.path), "what": what, "state": "complete", "judged": source.judged()}
    return run_data(source)


def run_data(run: FoundRun) -> dict[str, Any]:
    """What a comparison shows of a run: figures, histories, samples, settings."""
    data_settings = run.settings.get("data") or {}
    tables = [JSONTable(found, where=f"{run.path}/figures") for found in run.figures.values()]
    data: dict[str, Any] = {
        "path": str(run.path),
        "what": run.what,
        "state": run.state,
        "step": run.step,
        "stages_planned": list(run.stages),
        "sample_data": any(value == [SAMPLES] for value in data_settings.values()),
        "seconds": sum(table.get("stage_seconds", float, 0.0) for table in tables),
        "finished_at": max((str(f.get("finished_at") or "") for f in run.figures.values()), default=""),
        "settings": dict(run.settings),
    }
    for stage in run.stages:
        figures = {key: value for key, value in run.figures.get(stage, {}).items() if key != "answers"}
        data[stage] = {**figures, "history": curves(run.folder(stage))}
    if "pretrain" in run.stages:
        data["pretrain"]["samples"] = History(run.path / "samples.jsonl").records()
        if "scored_tokens" in data["pretrain"]:
            data["pretrain"]["val_tokens"] = data["pretrain"]["scored_tokens"]
    return data


def _title(labels: Sequence[str]) -> str:
    """The names in a row; of many only how many."""
    if len(labels) > 4:
        return f"{len(labels)} runs beside each other"
    return " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _labels(sources: Sequence[Source]) -> list[str]:
    """A name for each source: the shortest end of its path that no other has."""
    paths = [source.path.resolve() for source in sources]
    if not paths:
        raise ConfigError("a report needs a run, found none; name run folders or files of answers.")
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"each run should be named once, found {twice[0]} twice; drop one.")
    plain = [path.with_suffix("") if path.is_file() else path for path in paths]
    paths = plain if len(set(plain)) == len(plain) else paths
    n_parts = 1
    while len({path.parts[-n_parts:] for path in paths}) < len(paths):  # ends: whole paths differ
        n_parts += 1
    return ["/".join(path.parts[-n_parts:]) for path in paths]
