"""Scores that are there already: of a finished judgement, of humans, of another judge, or of words alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import parse_json, read_utf8
from scratchlm.evaluation.judge.items import ANSWER_KEY, Item, read_items
from scratchlm.evaluation.judge.offline import OFFLINE, OfflineGrader
from scratchlm.evaluation.judge.result_file import FORMAT, read_whole_lines

SCORE_KEY = "score"
SAME_FOR_BOTH = ("identity", "protocol", "prompt_sha256")  # else two files cannot be compared


@dataclass(frozen=True, kw_only=True)
class ScoredItems:
    """The scores of one file, by item; items without a score are known by their id only."""

    path: Path
    scores: dict[str, float]
    without: frozenset[str]  # ids of items that have none: unparsed or failed
    measured_by: tuple[str, str, str]  # identity, protocol, prompt
    doubts: tuple[str, ...] = ()  # why its controls make it unreliable

    @property
    def ids(self) -> frozenset[str]:
        """All of the file's items, with a score or without."""
        return self.without | set(self.scores)


def read_scored(path: Path, *, answer_key: str = ANSWER_KEY) -> ScoredItems:
    """The scores of a judge's result file, or of an answers file, which the offline judge scores at once.

    Two items with the same task and reference are told apart by their order.
    Raises: DataError for a file that is neither, and for a judgement that is not finished.
    """
    records = result_records(path)
    doubts: tuple[str, ...] = ()
    if records is not None:
        if not records or records[-1].get("kind") != "result":
            raise DataError(
                f"{path} should be a finished judgement, found one that stopped; start its command again first."
            )
        items = [
            (f"{path} line {number}", record)
            for number, record in enumerate(records, start=1)
            if record.get("kind") == "item"
        ]
        ids = _numbered([_id(record, where) for where, record in items])
        found = {one: _item_score(record, where) for one, (where, record) in zip(ids, items)}
        scores = {one: score for one, score in found.items() if score is not None}
        header, doubts = records[0], _doubts(records[-1])
        measured_by = (
            str(header.get("identity")),
            str(header.get("protocol")),
            str(header.get("prompt_sha256")),
        )
    else:
        answers = read_items(path, answer_key=answer_key)
        grader = OfflineGrader()
        ids = _numbered([item.id for item in answers])
        scores = {one: grader.grade(item).score or 0.0 for one, item in zip(ids, answers)}
        measured_by = (OFFLINE, SCORE_KEY, "")
    return ScoredItems(
        path=path,
        scores=scores,
        without=frozenset(set(ids) - set(scores)),
        measured_by=measured_by,
        doubts=doubts,
    )


def in_common(a: ScoredItems, b: ScoredItems, *, shared_only: bool) -> tuple[list[float], list[float]]:
    """Both files' scores of the same items, in the order of the first.

    Raises: ConfigError when they were measured differently; DataError when an item stands, or has a score, in one
        only and shared_only is off, or when none has both scores.
    """
    for name, of_a, of_b in zip(SAME_FOR_BOTH, a.measured_by, b.measured_by):
        if of_a != of_b:
            raise ConfigError(
                f"both files should be measured alike, found {name.replace('_', ' ')} {of_a!r:.400} in {a.path} and "
                f"{of_b!r:.400} in {b.path}; judge both with the same judge and prompt."
            )
    shared = [one for one in a.scores if one in b.scores]
    n_only_a, n_only_b = len(a.scores) - len(shared), len(b.scores) - len(shared)
    if (n_only_a or n_only_b) and not shared_only:
        raise DataError(
            f"both files should have a score for the same items, found {n_only_a} only in {a.path} and {n_only_b} only "
            f"in {b.path}; --shared-only compares the {len(shared)} in both."
        )
    n_apart = len(a.ids ^ b.ids)  # without a score where they stand
    if n_apart and not shared_only:
        raise DataError(
            f"both files should be about the same items, found {n_apart} in one of {a.path} and {b.path} only; "
            f"--shared-only compares the {len(shared)} with both scores."
        )
    if not shared:
        raise DataError(
            f"{a.path} and {b.path} should share items, found none; compare answers to the same test."
        )
    return [a.scores[one] for one in shared], [b.scores[one] for one in shared]


def read_earlier_scores(
    path: Path, items: Sequence[Item], *, key: str = SCORE_KEY, answer_key: str = ANSWER_KEY
) -> list[float | None]:
    """Somebody else's scores for the same answers, in their order; None where there is none.

    A JSON list of numbers and nulls (the book's form), entries with a number under `key` (JSON or JSONL), or a judge's
    result file over the same answers.
    Raises: DataError naming the place, when there are not as many as answers, and for other answers.
    """
    records = result_records(path)
    if records is not None:
        values: list[Any] = [record for record in records if record.get("kind") == "item"]
        key, answer_key = SCORE_KEY, ANSWER_KEY
    elif path.suffix.lower() == ".jsonl":
        lines = [line for line in read_utf8(path).split("\n") if line.strip()]
        values = [parse_json(line, where=f"{path} entry {n}") for n, line in enumerate(lines, start=1)]
    else:
        values = parse_json(read_utf8(path), where=str(path))
    if not isinstance(values, list) or len(values) != len(items):
        found = f"{len(values)}" if isinstance(values, list) else f"a {type(values).__name__}"
        raise DataError(
            f"{path} should hold a list of {len(items)} scores, one for each answer, found {found}; write null for an "
            "answer without a score."
        )
    for number, (value, item) in enumerate(zip(values, items), start=1):
        _check_same_answer(value, item, answer_key, f"{path} entry {number}")
    scores = [_score(value, key, f"{path} entry {number}") for number, value in enumerate(values, start=1)]
    n_scores = sum(score is not None for score in scores)
    if n_scores < 2:
        raise DataError(f"{path} should hold 2 scores or more, found {n_scores}; a correlation needs two.")
    return scores


def result_records(path: Path) -> list[dict[str, Any]] | None:
    """The lines of a judge's result file, or None for any other file."""
    if not path.is_file() or FORMAT not in _first_line(path):
        return None
    return read_whole_lines(path)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000)


def _id(record: Mapping[str, Any], where: str) -> str:
    if not isinstance(record.get("id"), str):
        raise DataError(f"{where} must be an item with its id, found {record.get('id')!r:.60}; judge again.")
    return str(record["id"])


def _item_score(record: Mapping[str, Any], where: str) -> float | None:
    score = record.get("score")
    if score is not None and not _is_finite(score):
        raise DataError(f"{where} must have a number or null as its score, found {score!r:.60}; judge again.")
    return None if score is None else float(score)


def _doubts(result: Mapping[str, Any]) -> tuple[str, ...]:
    found = result.get("doubts")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _numbered(ids: Sequence[str]) -> list[str]:
    """Each id with how often it came before."""
    seen: dict[str, int] = {}
    numbered = []
    for one in ids:
        seen[one] = seen.get(one, 0) + 1
        numbered.append(f"{one}-{seen[one]}")
    return numbered


def _check_same_answer(value: Any, item: Item, answer_key: str, where: str) -> None:
    if not isinstance(value, dict):
        return
    for name, text in (("instruction", item.instruction), (answer_key, item.answer)):
        if isinstance(value.get(name), str) and value[name] != text:
            raise DataError(
                f"{where} should score the same answers, found another {name}; use the same file."
            )


def _score(value: Any, key: str, where: str) -> float | None:
    if isinstance(value, dict):
        if key not in value:
            raise DataError(
                f"{where} must have a score under {key!r}, found {', '.join(value) or 'no key'}; name the right one "
                "with --calibrate-key."
            )
        value = value[key]
    if value is None:
        return None
    if not _is_finite(value):
        raise DataError(f"{where} must be a number or null, found {value!r:.60}; correct it.")
    return float(value)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
