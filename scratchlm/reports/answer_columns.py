"""Files of answers, judged or not, as columns of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import parse_json, read_utf8
from scratchlm.evaluation.text_scores import exact_match, token_f1
from scratchlm.reports.formats import is_number
from scratchlm.reports.paired_items import Column, Given

OWN_SCORE = ("token F1", 1.0)  # of answers that no judge has seen
TEXTS = ("instruction", "input", "output", "model_response")


@dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """What a file of answers holds: the items, and what a judge said about all of them together."""

    path: Path
    entries: list[Mapping[str, Any]]
    header: Mapping[str, Any] = field(default_factory=dict)  # {} without a judge
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        """Are the scores a judge's?"""
        return bool(self.header)

    @property
    def judge(self) -> str:
        """Who scored the answers."""
        return str(self.header.get("judge") or "a judge")

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        low, high = self.result.get("scale") or (0, 100)
        return float(low), float(high)

    def column(self, label: str, *, run: int) -> Column:
        """The file's answers under that label."""
        name = f"score by {self.judge}" if self.is_judged else OWN_SCORE[0]
        most = self.scale[1] if self.is_judged else OWN_SCORE[1]
        return Column(
            label=label,
            score_name=name,
            score_max=most,
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
        """The judge's figures, as the page takes them; {} without a judge."""
        if not self.is_judged:
            return {}
        low, high = self.scale
        keys = (
            "mean",
            "low",
            "high",
            "scored",
            "unparsed",
            "failed",
            "empty",
            "unreliable",
            "doubts",
            "protocol",
        )
        return {
            "judge": self.judge,
            "min": low,
            "max": high,
            "scores": [float(entry["score"]) for entry in self.entries if is_number(entry.get("score"))],
            **{key: self.result[key] for key in keys if self.result.get(key) is not None},
        }


def read_answer_file(path: Path) -> AnswerFile:
    """Answers in the book's form (JSON list or JSON lines), or what `scratchlm evaluate judge --out` wrote.

    Half a last line, which a killed writer left, is left out.
    Raises: DataError naming the file and line of what is no answer, or for a judgement that has not ended.
    """
    text = read_utf8(path)
    if text.lstrip().startswith("["):
        records = parse_json(text, where=str(path))
    else:
        lines = text.split("\n")
        records = [
            parse_json(line, where=f"{path} line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not (number == len(lines) and not line.rstrip().endswith("}"))
        ]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}, entry {number} must be an object, found {type(record).__name__}; repair the file."
            )
        kinds.setdefault(str(record.get("kind") or "item"), []).append(record)
    entries = kinds.get("item", [])
    if "header" in kinds and "result" not in kinds:
        raise DataError(
            f"{path} should be a finished judgement, found one that stopped on its way; run the same "
            "`scratchlm evaluate judge` again, which goes on."
        )
    if not entries:
        raise DataError(f"{path} should hold answers, found none; name a run folder or a file of answers.")
    for number, entry in enumerate(entries, start=1):
        missing = [key for key in TEXTS if key not in entry and key != "input"]
        if missing:
            raise DataError(
                f"{path}, answer {number} needs {', '.join(TEXTS)}, found no {missing[0]}; repair the file."
            )
    first = {kind: records[0] for kind, records in kinds.items()}
    return AnswerFile(
        path=path, entries=entries, header=first.get("header", {}), result=first.get("result", {})
    )


def judge_words(replies: Sequence[Mapping[str, Any]]) -> str:
    """What a judge replied, one reply after the other."""
    return "\n\n".join(str(reply.get("reply", "")) for reply in replies if isinstance(reply, Mapping)).strip()


def _judged(entry: Mapping[str, Any]) -> Given:
    score = entry.get("score")
    exact = (entry.get("figures") or {}).get("exact_match")  # the offline judge's
    words = [judge_words(entry.get("replies") or []), str(entry.get("problem") or "")]
    return Given(
        text=_answer(entry),
        score=float(score) if is_number(score) else None,
        right=exact == 1 if is_number(exact) else None,
        words="\n\n".join(word for word in words if word),
        status=str(entry.get("status") or "scored"),
    )


def _unjudged(entry: Mapping[str, Any]) -> Given:
    text, reference = _answer(entry), str(entry["output"])
    return Given(
        text=text,
        score=token_f1(text, reference),
        right=exact_match(text, reference),
        status="scored" if text.strip() else "empty",
    )


def _answer(entry: Mapping[str, Any]) -> str:
    return "" if entry["model_response"] is None else str(entry["model_response"])
