"""What stands beside each other when runs are compared: figures, settings, samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchlm.reports.checks import Data
from scratchlm.reports.claims import Bar, Claim, claims
from scratchlm.reports.formats import count, decimal, is_number
from scratchlm.reports.views import MAX_SAMPLE_STEPS, Shown, even_choice, flat_settings

STAGES = {"pretrain", "classify", "instruct", "prefer"}
DATA_OF = {"data.messages": "classify", "data.instructions": "instruct", "data.preferences": "prefer"}
MEANINGLESS = {"description", "needs"}  # settings that change nothing


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """One figure, and what each run has for it; None where a run has none."""

    name: str
    note: str
    cells: list[Claim | None]


@dataclass(frozen=True, kw_only=True)
class SettingRow:
    """One setting, and its value in each run; None where a run has no such setting."""

    name: str
    values: list[Any]
    differs: bool


def figure_rows(runs: Sequence[Data]) -> list[FigureRow]:
    """Every main figure that at least one run has, in the order of a model's life."""
    found: dict[str, tuple[str, list[Claim | None]]] = {}
    for number, run in enumerate(runs):
        for claim in [*claims(run), *_judge_claims(run)]:
            _, cells = found.setdefault(claim.name, (claim.note, [None] * len(runs)))
            cells[number] = claim
    return [FigureRow(name=name, note=note, cells=cells) for name, (note, cells) in found.items()]


def share_bars(runs: Sequence[Data], stage: str, key: str, look: Callable[[int], str]) -> list[Bar]:
    """One share of every run that has it, with its interval, in the run's colour."""
    bars = []
    for number, run in enumerate(runs):
        part = run.get(stage) or {}
        if is_number(part.get(key)):
            low, high = part.get("low"), part.get("high")
            ends = (low, high) if is_number(low) and is_number(high) else (None, None)
            bars.append(
                Bar(
                    label=str(run.get("label")),
                    value=part[key],
                    low=ends[0],
                    high=ends[1],
                    note=f"of {count(part['test_n'])}" if is_number(part.get("test_n")) else "",
                    role=look(number),
                )
            )
    return bars


def setting_rows(runs: Sequence[Data]) -> list[SettingRow]:
    """Every setting of a stage that some run has; runs without that stage have none, and differ in nothing there."""
    tables = [dict(flat_settings(_own_settings(run))) for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    rows = []
    for name in names:
        values = [table.get(name) for table in tables]
        stage = _stage_of(name)
        used = [
            value
            for value, run in zip(values, runs)
            if run.get("settings") and (stage is None or stage in (run.get("stages_planned") or ()))
        ]
        rows.append(SettingRow(name=name, values=values, differs=any(value != used[0] for value in used[1:])))
    return rows


def samples_beside(runs: Sequence[Data]) -> Shown:
    """What each run had last written by each moment of training; of many moments an even choice."""
    written: list[list[dict[str, Any]]] = []
    for number, run in enumerate(runs):
        samples = (run.get("pretrain") or {}).get("samples") or []
        texts = [sample for sample in samples if is_number(sample.get("step"))]
        written.append([_sample(number, sample) for sample in sorted(texts, key=lambda text: text["step"])])
    steps = sorted({text["step"] for texts in written for text in texts})
    kept = even_choice(steps, MAX_SAMPLE_STEPS)
    groups = [
        {"step": step, "texts": [known[-1] for texts in written if (known := _until(texts, step))]}
        for step in kept
    ]
    return Shown(items=groups, n_left_out=len(steps) - len(kept))


def _until(texts: Sequence[dict[str, Any]], step: float) -> list[dict[str, Any]]:
    return [text for text in texts if text["step"] <= step]


def _sample(number: int, sample: Data) -> dict[str, Any]:
    prompt, text = str(sample.get("prompt") or ""), str(sample.get("text") or "")
    return {"run": number, "step": sample["step"], "prompt": prompt, "text": text.removeprefix(prompt)}


def skill_rows(runs: Sequence[Data]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """Exact match skill by skill, each run in its place."""
    found: dict[str, list[Mapping[str, Any] | None]] = {}
    for number, run in enumerate(runs):
        for row in (run.get("instruct") or {}).get("by_skill") or []:
            found.setdefault(str(row.get("skill")), [None] * len(runs))[number] = row
    return list(found.items())


def _stage_of(name: str) -> str | None:
    """The stage that a setting is for; None for what is everybody's."""
    section = name.partition(".")[0]
    if section in STAGES:
        return section
    if section in ("model", "tokenizer", "sample_prompt", "data"):
        return DATA_OF.get(name, "pretrain")
    return None


def _own_settings(run: Data) -> dict[str, Any]:
    """The settings that the run's stages used: sections of other stages and empty lists of data say nothing."""
    stages = run.get("stages_planned") or ()
    others = STAGES - set(stages)
    if "pretrain" not in stages:
        others |= {"model", "tokenizer", "sample_prompt"}
    own = {
        name: value for name, value in (run.get("settings") or {}).items() if name not in others | MEANINGLESS
    }
    if isinstance(own.get("data"), Mapping):
        own["data"] = {name: value for name, value in own["data"].items() if value not in ([], ())}
    return own


def _judge_claims(run: Data) -> list[Claim]:
    judged = run.get("judged") or {}
    if not is_number(judged.get("mean")):
        return []
    low, high = judged.get("low"), judged.get("high")
    ends = f"{decimal(low, 1)}–{decimal(high, 1)}" if is_number(low) and is_number(high) else ""
    counted = sum(judged[key] for key in ("scored", "empty") if is_number(judged.get(key)))
    aside = {"empty": "empty", "unparsed": "more unparsed", "failed": "more failed"}
    parts = [f"{count(judged[key])} {words}" for key, words in aside.items() if judged.get(key)]
    note = f"By {judged.get('judge') or 'a judge'}, on a scale to {judged.get('max', 100):g}."
    over = f"{count(counted)} answers{' (' + ', '.join(parts) + ')' if parts else ''}"
    name = f"Score by {judged.get('judge') or 'a judge'}"
    return [Claim(name=name, value=decimal(judged["mean"], 1), over=over, interval=ends, note=note)]
