"""Read existing scores of answers (of a finished judgement, humans or another judge), and compare them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.row_files import RowSettings, parsed_rows
from scratchlm.evaluation.correlation import Correlation, kendall, pearson, spearman
from scratchlm.evaluation.judge.grading import OFFLINE, OfflineGrader
from scratchlm.evaluation.judge.items import ANSWER_KEY, Item, read_items
from scratchlm.evaluation.judge.result_file import FORMAT, read_whole_lines

SCORE_KEY = "score"
MEASUREMENT = ("identity", "protocol", "prompt_sha256")  # two files are compared only when these are equal


@dataclass(frozen=True, kw_only=True)
class ScoredItems:
    """The scores of one file, by item id."""

    path: Path
    scores: dict[str, float]
    without: frozenset[str]  # ids of items without a score: unparsed or failed
    measured_by: tuple[str, str, str]  # identity, protocol, prompt
    doubts: tuple[str, ...] = ()  # reasons from its controls

    @property
    def ids(self) -> frozenset[str]:
        """All items of the file, with or without a score."""
        return self.without | set(self.scores)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Three correlations over the answers that both judges scored, and the mean of each judge."""

    n: int
    mean: float
    earlier_mean: float
    pearson: Correlation
    spearman: Correlation
    kendall: Correlation


def read_scored(path: Path, *, answer_key: str = ANSWER_KEY) -> ScoredItems:
    """Read the scores of a judge's result file, or score a file of answers with the offline grader.

    Two items with the same task and reference are distinguished by their order.
    Raises: DataError for any other file, and for an unfinished judgement.
    """
    records = result_records(path)
    doubts: tuple[str, ...] = ()
    if records is None:
        answers = read_items(path, answer_key=answer_key)
        grader = OfflineGrader()
        ids = _numbered([item.id for item in answers])
        scores = {one: grader.grade(item).score or 0.0 for one, item in zip(ids, answers)}
        measured_by = (OFFLINE, SCORE_KEY, "")
    else:
        if not records or records[-1].get("kind") != "result":
            raise DataError(
                f"{path} is an unfinished judgement; run its `scratchlm evaluate judge` command again to complete it."
            )
        lines = [(f"{path} line {number}", record) for number, record in enumerate(records, start=1)]
        items = [(where, record) for where, record in lines if record.get("kind") == "item"]
        ids = _numbered([_id(record, where) for where, record in items])
        found = {one: _number(r.get("score"), where, "judge again") for one, (where, r) in zip(ids, items)}
        scores = {one: score for one, score in found.items() if score is not None}
        identity, protocol, prompt = (str(records[0].get(key)) for key in MEASUREMENT)
        measured_by = (identity, protocol, prompt)
        listed = records[-1].get("doubts")
        doubts = tuple(map(str, listed)) if isinstance(listed, list) else ()
    without = frozenset(set(ids) - set(scores))
    return ScoredItems(path=path, scores=scores, without=without, measured_by=measured_by, doubts=doubts)


def scores_in_common(a: ScoredItems, b: ScoredItems, *, shared_only: bool) -> tuple[list[float], list[float]]:
    """Match both files' scores of the same items, in the order of the first.

    Raises: ConfigError when they were measured differently; DataError when an item, or its score, is in only
        one file and shared_only is off, or when no item has both scores.
    """
    for name, of_a, of_b in zip(MEASUREMENT, a.measured_by, b.measured_by):
        if of_a != of_b:
            raise ConfigError(
                f"the two files were measured differently: {name.replace('_', ' ')} is {of_a!r:.400} in {a.path} and "
                f"{of_b!r:.400} in {b.path}; judge both with the same judge and prompt."
            )
    shared = [one for one in a.scores if one in b.scores]
    n_only_a, n_only_b = len(a.scores) - len(shared), len(b.scores) - len(shared)
    if (n_only_a or n_only_b) and not shared_only:
        raise DataError(
            f"{n_only_a} items have a score only in {a.path} and {n_only_b} only in {b.path}; --shared-only compares "
            f"the {len(shared)} with both scores."
        )
    n_apart = len(a.ids ^ b.ids)  # without a score where they are
    if n_apart and not shared_only:
        raise DataError(
            f"{n_apart} items are in only one of {a.path} and {b.path}; --shared-only compares the {len(shared)} with "
            "both scores."
        )
    if not shared:
        raise DataError(f"{a.path} and {b.path} have no items in common; compare answers to the same test.")
    return [a.scores[one] for one in shared], [b.scores[one] for one in shared]


def read_earlier_scores(
    path: Path, items: Sequence[Item], *, key: str = SCORE_KEY, answer_key: str = ANSWER_KEY
) -> list[float | None]:
    """Read earlier scores for the same answers, in their order; None where there is none.

    A JSON list of numbers and nulls (the book's form), rows with a number under `key`, or a judge's result file over
    the same answers.
    Raises: DataError naming the row, when the number of scores is not that of the answers, and for other answers.
    """
    records = result_records(path)
    if records is not None:
        values: list[Any] = [record for record in records if record.get("kind") == "item"]
        key, answer_key = SCORE_KEY, ANSWER_KEY
    else:
        values = [value for value, _ in parsed_rows(path, RowSettings())]
        damaged = next((value for value in values if isinstance(value, DataError)), None)
        if damaged is not None:
            raise damaged
    if len(values) != len(items):
        raise DataError(
            f"{path} must hold a list of {len(items)} scores, one for each answer, got {len(values)}; write null for "
            "an answer without a score."
        )
    for number, (value, item) in enumerate(zip(values, items), start=1):
        _check_same_answer(value, item, answer_key, f"{path} entry {number}")
    scores = [_score(value, key, f"{path} entry {number}") for number, value in enumerate(values, start=1)]
    n_scores = sum(score is not None for score in scores)
    if n_scores < 2:
        raise DataError(f"{path} must hold at least 2 scores, got {n_scores}; a correlation needs two.")
    return scores


def agreement(scores: Sequence[float | None], earlier: Sequence[float | None]) -> Agreement:
    """Correlate two lists of scores for the same answers, over the answers that have both.

    Raises: DataError when fewer than two answers have both.
    """
    both = [(x, y) for x, y in zip(scores, earlier, strict=True) if x is not None and y is not None]
    if len(both) < 2:
        raise DataError(
            f"a calibration needs at least 2 answers with both scores, got {len(both)}; score more answers."
        )
    ours, theirs = [x for x, _ in both], [y for _, y in both]
    return Agreement(
        n=len(both),
        mean=sum(ours) / len(ours),
        earlier_mean=sum(theirs) / len(theirs),
        pearson=pearson(ours, theirs),
        spearman=spearman(ours, theirs),
        kendall=kendall(ours, theirs),
    )


def result_records(path: Path) -> list[dict[str, Any]] | None:
    """The lines of a judge's result file, or None for any other file."""
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        is_result_file = FORMAT in file.readline(1000)
    return read_whole_lines(path) if is_result_file else None


def _id(record: Mapping[str, Any], where: str) -> str:
    if not isinstance(record.get("id"), str):
        raise DataError(f"{where} must be an item with an id, got {record.get('id')!r:.60}; judge again.")
    return str(record["id"])


def _numbered(ids: Sequence[str]) -> list[str]:
    """Pair each id with the number of its earlier occurrences."""
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
            raise DataError(f"{where} is a score for another {name}; use the file that was scored.")


def _score(value: Any, key: str, where: str) -> float | None:
    if isinstance(value, dict):
        if key not in value:
            raise DataError(
                f"{where} must have a score under {key!r}, got {', '.join(value) or 'no key'}; name the right one "
                "with --calibrate-key."
            )
        value = value[key]
    return _number(value, where, "correct it")


def _number(score: Any, where: str, advice: str) -> float | None:
    is_number = isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score)
    if score is not None and not is_number:
        raise DataError(f"{where} must have a number or null as its score, got {score!r:.60}; {advice}.")
    return None if score is None else float(score)
