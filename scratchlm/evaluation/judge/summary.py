"""What a judgement comes to: counts, mean with its interval, and what could have moved it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scratchlm.evaluation.intervals import bootstrap_interval, wilson_interval
from scratchlm.evaluation.judge.controls import ControlResult, doubts
from scratchlm.evaluation.judge.grading import Grade
from scratchlm.evaluation.judge.protocols import JudgingProtocol


@dataclass(frozen=True, kw_only=True)
class FigureMean:
    """One of the offline judge's figures over all answers, 0 to 1, with its 95 % interval."""

    mean: float
    low: float | None  # None for a single answer
    high: float | None


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """What pairs shown in both orders tell, of the judge and of the answers."""

    wins: int  # items where the answer under test was preferred in both orders
    ties: int
    losses: int
    split: int  # items where the two orders disagree
    first_chosen: (
        float | None
    )  # share of decided verdicts for the answer shown first; 0.5 is no position bias
    first_low: float | None  # its 95 % interval
    first_high: float | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A measurement. The mean is over `n_counted` items: those scored, and the empty ones at the lowest point."""

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
    least: float  # the mean, had every item left out scored the lowest point
    most: float  # the same with the highest
    controls: tuple[ControlResult, ...]
    doubts: tuple[str, ...]  # why the run is unreliable
    figures: dict[str, FigureMean]
    pairs: PairFigures | None

    @property
    def n_counted(self) -> int:
        """Items in the mean."""
        return self.scored + self.empty

    @property
    def is_unreliable(self) -> bool:
        """Did a control say so?"""
        return bool(self.doubts)

    def record(self) -> dict[str, Any]:
        """As the last line of the file, and the keys of `--json`."""
        return {
            "protocol": self.protocol,
            "scale": list(self.scale),
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "median": self.median,
            "deviation": self.deviation,
            "least": self.least,
            "most": self.most,
            "items": self.n_items,
            "scored": self.scored,
            "unparsed": self.unparsed,
            "failed": self.failed,
            "empty": self.empty,
            "controls": [control.record() for control in self.controls],
            "unreliable": self.is_unreliable,
            "doubts": list(self.doubts),
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "pairs": None if self.pairs is None else asdict(self.pairs),
        }


def summarise(
    grades: Sequence[Grade], controls: Sequence[ControlResult], *, protocol: JudgingProtocol
) -> Judgement:
    """Counts, mean, median, standard deviation and 95 % bootstrap interval of the grades."""
    known = [grade.score for grade in grades if grade.score is not None]
    n_out = len(grades) - len(known)
    scores = (
        known if n_out == 0 or _count(grades, "scored") else []
    )  # empty answers alone say nothing of the others
    low, high = _interval(scores)
    return Judgement(
        protocol=protocol.name,
        scale=(protocol.low, protocol.high),
        n_items=len(grades),
        scored=_count(grades, "scored"),
        unparsed=_count(grades, "unparsed"),
        failed=_count(grades, "failed"),
        empty=_count(grades, "empty"),
        mean=statistics.fmean(scores) if scores else None,
        low=low,
        high=high,
        median=statistics.median(scores) if scores else None,
        deviation=statistics.stdev(scores) if len(scores) > 1 else None,
        least=(sum(known) + n_out * protocol.low) / len(grades),
        most=(sum(known) + n_out * protocol.high) / len(grades),
        controls=tuple(controls),
        doubts=tuple(doubts(controls, protocol)),
        figures=_figures(grades),
        pairs=_pairs(grades) if protocol.name == "pairwise" else None,
    )


def _count(grades: Sequence[Grade], status: str) -> int:
    return sum(grade.status == status for grade in grades)


def _interval(values: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """One value says nothing of how much the next would differ."""
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
