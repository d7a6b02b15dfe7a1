"""Summarise a judgement: counts, the mean with its interval, measures for pairs and the offline grader."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scratchlm.evaluation.intervals import bootstrap_interval, wilson_interval
from scratchlm.evaluation.judge.controls import ControlResult, find_doubts
from scratchlm.evaluation.judge.grading import Grade
from scratchlm.evaluation.judge.protocols import JudgingProtocol

RECORD_KEYS = (
    *("protocol", "scale", "mean", "low", "high", "median", "deviation", "least", "most", "items"),
    *("scored", "unparsed", "failed", "empty", "controls", "unreliable", "doubts", "figures", "pairs"),
)


@dataclass(frozen=True, kw_only=True)
class FigureMean:
    """The mean of one measure of the offline grader over all answers, 0 to 1, with its 95 % interval."""

    mean: float
    low: float | None  # None for a single answer
    high: float | None


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """Wins, losses and position bias in pairwise judging, with every pair shown in both orders."""

    wins: int  # items where the answer under test was preferred in both orders
    ties: int
    losses: int
    split: int  # items where the two orders disagree
    first_chosen: float | None  # share of verdicts, without ties, for the answer shown first; 0.5 is no bias
    first_low: float | None  # its 95 % interval
    first_high: float | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The scores of all answers; the mean includes empty answers, which get the lowest point."""

    protocol: str
    scale: tuple[int, int]
    n_items: int
    scored: int
    unparsed: int
    failed: int
    empty: int
    mean: float | None  # None when nothing was scored
    low: float | None  # 95 % bootstrap interval of the mean; None below two answers
    high: float | None
    median: float | None
    deviation: float | None  # standard deviation of the items; None below two
    least: float  # the mean if every item without a score had the lowest point
    most: float  # the same with the highest point
    controls: tuple[ControlResult, ...]
    doubts: tuple[str, ...]  # reasons why the scores are unreliable
    figures: dict[str, FigureMean]
    pairs: PairFigures | None

    @property
    def n_counted(self) -> int:
        """Number of items in the mean."""
        return self.scored + self.empty

    @property
    def is_unreliable(self) -> bool:
        """Whether a control failed."""
        return bool(self.doubts)

    def record(self) -> dict[str, Any]:
        """The values for the last line of the file and `--json`."""
        values = asdict(self) | {
            "scale": list(self.scale),
            "items": self.n_items,
            "controls": [control.record() for control in self.controls],
            "unreliable": self.is_unreliable,
            "doubts": list(self.doubts),
        }
        return {key: values[key] for key in RECORD_KEYS}


def summarise(
    grades: Sequence[Grade], controls: Sequence[ControlResult], *, protocol: JudgingProtocol
) -> Judgement:
    """Compute counts, mean, median, standard deviation and 95 % bootstrap interval of the grades."""
    counts = {
        status: sum(grade.status == status for grade in grades)
        for status in ("scored", "unparsed", "failed", "empty")
    }
    known = [grade.score for grade in grades if grade.score is not None]
    n_missing = len(grades) - len(known)
    # empty answers alone are not a sample of all answers
    scores = known if n_missing == 0 or counts["scored"] else []
    low, high = _interval(scores)
    return Judgement(
        protocol=protocol.name,
        scale=(protocol.low, protocol.high),
        n_items=len(grades),
        **counts,
        mean=statistics.fmean(scores) if scores else None,
        low=low,
        high=high,
        median=statistics.median(scores) if scores else None,
        deviation=statistics.stdev(scores) if len(scores) > 1 else None,
        least=(sum(known) + n_missing * protocol.low) / len(grades),
        most=(sum(known) + n_missing * protocol.high) / len(grades),
        controls=tuple(controls),
        doubts=tuple(find_doubts(controls, protocol)),
        figures=_figures(grades),
        pairs=_pairs(grades) if protocol.name == "pairwise" else None,
    )


def _interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    return bootstrap_interval(values) if len(values) > 1 else (None, None)


def _figures(grades: Sequence[Grade]) -> dict[str, FigureMean]:
    values: dict[str, list[float]] = {}
    for grade in grades:
        for name, value in grade.figures:
            values.setdefault(name, []).append(value)
    means = {}
    for name, column in values.items():
        low, high = _interval(column)
        means[name] = FigureMean(mean=statistics.fmean(column), low=low, high=high)
    return means


def _pairs(grades: Sequence[Grade]) -> PairFigures:
    scored = [grade for grade in grades if grade.status == "scored"]
    verdicts = [{reply.order: reply.points for reply in grade.replies} for grade in scored]
    agreed = [verdict["ab"] for verdict in verdicts if verdict["ab"] == verdict["ba"]]
    first = [
        order == ("ab" if points == 100 else "ba")
        for verdict in verdicts
        for order, points in verdict.items()
        if points != 50
    ]
    low, high = wilson_interval(sum(first), len(first)) if first else (None, None)
    return PairFigures(
        wins=sum(points == 100 for points in agreed),
        ties=sum(points == 50 for points in agreed),
        losses=sum(points == 0 for points in agreed),
        split=len(verdicts) - len(agreed),
        first_chosen=sum(first) / len(first) if first else None,
        first_low=low,
        first_high=high,
    )
