"""Collect runs and files of answers for a report: metrics, histories, settings, and answers item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

from scratchlm import __version__
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import read_bytes
from scratchlm.core.json_table import JSONTable
from scratchlm.data.row_files import RowSettings, parsed_rows
from scratchlm.evaluation.text_scores import exact_match, token_f1
from scratchlm.recipes.recipe import SAMPLES
from scratchlm.reports.formats import is_number, listed
from scratchlm.reports.found_runs import FoundRun, the_run
from scratchlm.reports.paired_items import Column, ModelAnswer, Paired, pair_items
from scratchlm.reports.run_data import curves
from scratchlm.training.history import History

ANSWERING = ("instruct", "prefer")  # stages that save answers
REQUIRED = ("instruction", "output", "model_response")  # keys of an entry
OWN_SCORE = ("token F1", 1.0)  # score and maximum of answers without a judge
JUDGE_FIGURES = (
    *("mean", "low", "high", "scored", "unparsed"),
    *("failed", "empty", "unreliable", "doubts", "protocol"),
)


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """The entries of a file of answers, and the judge's summary of them."""

    path: Path
    entries: list[Mapping[str, Any]]
    header: Mapping[str, Any] = field(default_factory=dict)  # {} without a judge
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        """Whether the scores are those of a judge."""
        return bool(self.header)

    @property
    def judge(self) -> str:
        """The name of the judge."""
        return str(self.header.get("judge") or "a judge")

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        low, high = self.result.get("scale") or (0, 100)
        return float(low), float(high)

    def column(self, label: str, *, run: int) -> Column:
        """The file's answers under this label."""
        return Column(
            label=label,
            score_name=f"score by {self.judge}" if self.is_judged else OWN_SCORE[0],
            score_max=self.scale[1] if self.is_judged else OWN_SCORE[1],
            run=run,
            asked=[
                {
                    "instruction": str(entry["instruction"]),
                    "input": str(entry.get("input") or ""),
                    "reference": str(entry["output"]),
                    "skill": str(entry.get("skill") or ""),
                }
                for entry in self.entries
            ],
            given=[_judged(entry) if self.is_judged else _unjudged(entry) for entry in self.entries],
        )

    def judged(self) -> dict[str, Any]:
        """The judge's statistics for the page; {} without a judge."""
        if not self.is_judged:
            return {}
        low, high = self.scale
        return {
            "judge": self.judge,
            "min": low,
            "max": high,
            "scores": [float(entry["score"]) for entry in self.entries if is_number(entry.get("score"))],
            **{key: self.result[key] for key in JUDGE_FIGURES if self.result.get(key) is not None},
        }


Source: TypeAlias = FoundRun | AnswerFile


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The data of several sources for a report: plain values, and the answers item by item."""

    data: dict[str, Any]
    paired: Paired


def find_source(name: str, runs_dir: Path = Path("runs")) -> Source:
    """Open a run folder, a run by its name in the runs folder, or a file of answers (judged or not).

    Raises: ConfigError for anything else; DataError for a damaged file.
    """
    path = Path(name)
    return read_answer_file(path) if path.is_file() else the_run(name, runs_dir)


def read_answer_file(path: Path) -> AnswerFile:
    """Read answers in the book's form (JSON list or JSON lines), or a result file of `scratchlm evaluate judge`.

    An incomplete last line, as left by a killed process, is ignored.
    Raises: DataError naming the file and line of a malformed entry, or for an unfinished judgement.
    """
    rows = list(parsed_rows(path, RowSettings()))
    if rows and isinstance(rows[-1][0], DataError) and not read_bytes(path).endswith(b"\n"):
        rows.pop()
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for record, where in rows:
        if isinstance(record, DataError):
            raise record
        if not isinstance(record, dict):
            raise DataError(f"{where} must be an object, got {type(record).__name__}; repair the file.")
        kinds.setdefault(str(record.get("kind") or "item"), []).append(record)
    entries = kinds.get("item", [])
    if "header" in kinds and "result" not in kinds:
        raise DataError(
            f"{path} is an unfinished judgement; run its `scratchlm evaluate judge` command again to complete it."
        )
    if not entries:
        raise DataError(f"{path} holds no answers; name a run folder or a file of answers.")
    for number, entry in enumerate(entries, start=1):
        missing = [key for key in REQUIRED if key not in entry]
        if missing:
            raise DataError(f"{path}, answer {number} has no {missing[0]!r}; repair the file.")
    first = {kind: records[0] for kind, records in kinds.items()}
    return AnswerFile(
        path=path, entries=entries, header=first.get("header", {}), result=first.get("result", {})
    )


def collect(sources: Sequence[Source]) -> Comparison:
    """Collect the data that a report shows of its sources.

    Raises: ConfigError for a source named twice; DataError for a damaged history or file of answers.
    """
    labels = _labels(sources)
    runs: list[dict[str, Any]] = []
    columns: list[Column] = []
    for number, (label, source) in enumerate(zip(labels, sources)):
        runs.append({"label": label, **_source_data(source)})
        columns += answer_columns(source, label, run=number)
    data = {
        "title": listed(labels) if len(labels) <= 4 else f"Comparison of {len(labels)} runs",
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"scratchlm": __version__},
        "runs": runs,
    }
    return Comparison(data=data, paired=pair_items(columns))


def answer_columns(source: Source, label: str, *, run: int = 0) -> list[Column]:
    """The answers of a file, or of every stage of a run that saved some."""
    if isinstance(source, AnswerFile):
        return [source.column(label, run=run)]
    files = {stage: source.folder(stage) / "answers.jsonl" for stage in ANSWERING if stage in source.stages}
    there = {stage: file for stage, file in files.items() if file.is_file() and file.stat().st_size}
    return [
        read_answer_file(file).column(label if len(there) == 1 else f"{label} ({stage})", run=run)
        for stage, file in there.items()
    ]


def run_data(run: FoundRun) -> dict[str, Any]:
    """A run's metrics, histories, samples and settings for a comparison."""
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


def _source_data(source: Source) -> dict[str, Any]:
    if isinstance(source, AnswerFile):
        what = f"answers scored by {source.judge}" if source.is_judged else "answers"
        return {"path": str(source.path), "what": what, "state": "complete", "judged": source.judged()}
    return run_data(source)


def _judged(entry: Mapping[str, Any]) -> ModelAnswer:
    score = entry.get("score")
    exact = (entry.get("figures") or {}).get("exact_match")  # the offline judge's
    replies = [str(r.get("reply", "")) for r in entry.get("replies") or [] if isinstance(r, Mapping)]
    words = ["\n\n".join(replies).strip(), str(entry.get("problem") or "")]
    return ModelAnswer(
        text=_answer(entry),
        score=float(score) if is_number(score) else None,
        right=exact == 1 if is_number(exact) else None,
        words="\n\n".join(word for word in words if word),
        status=str(entry.get("status") or "scored"),
    )


def _unjudged(entry: Mapping[str, Any]) -> ModelAnswer:
    text, reference = _answer(entry), str(entry["output"])
    score, status = token_f1(text, reference), "scored" if text.strip() else "empty"
    return ModelAnswer(text=text, score=score, right=exact_match(text, reference), status=status)


def _answer(entry: Mapping[str, Any]) -> str:
    return "" if entry["model_response"] is None else str(entry["model_response"])


def _labels(sources: Sequence[Source]) -> list[str]:
    """A label for each source: the shortest unique end of its path."""
    paths = [source.path.resolve() for source in sources]
    if not paths:
        raise ConfigError("a report needs at least one run; name run folders or files of answers.")
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"the run {twice[0]} is named twice; name each run once.")
    plain = [path.with_suffix("") if path.is_file() else path for path in paths]
    paths = plain if len(set(plain)) == len(plain) else paths
    n_parts = 1
    while len({path.parts[-n_parts:] for path in paths}) < len(paths):  # terminates: full paths differ
        n_parts += 1
    return ["/".join(path.parts[-n_parts:]) for path in paths]
