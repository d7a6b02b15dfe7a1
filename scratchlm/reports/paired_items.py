"""Pair several models' answers to the same test items, and test the differences between their scores."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scratchlm.evaluation.paired import compare_paired
from scratchlm.reports.formats import cut, for_page, is_number

LONGEST = 4000  # maximum characters of a text on the page; files have the full text
PER_PAGE = 10  # number of items that the page shows at a time


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """One model's answer to an item."""

    text: str
    score: float | None = None  # None: not scored, `status` says why
    right: bool | None = None  # exact match with the reference; None: unknown
    words: str = ""  # the judge's replies
    status: str = "scored"  # or "unparsed", "failed", "empty", or another status of its file


@dataclass(frozen=True, kw_only=True)
class Column:
    """All answers of one model, and the scale of their scores."""

    label: str
    score_name: str  # "token F1", or the judge
    score_max: float
    asked: Sequence[Mapping[str, str]]  # instruction, input, reference, skill; one per answer
    given: Sequence[ModelAnswer]
    run: int = 0  # index of its run on the page, whose colour it has

    @property
    def scale(self) -> tuple[str, float]:
        """Name and maximum of the score; only scores on the same scale are compared."""
        return self.score_name, self.score_max


@dataclass(frozen=True, kw_only=True)
class PairedItem:
    """One test item with every model's answer; None where a model has no answer."""

    instruction: str
    input: str
    reference: str
    skill: str
    answers: list[ModelAnswer | None]
    spread: float | None = None  # range of the scores as a share of the scale; None for fewer than two


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two models' mean scores on the items that both answered."""

    one: str
    other: str
    score_name: str
    n: int
    mean: float  # `one` minus `other`, in points of the scale
    low: float  # ends of its 95 % paired-bootstrap interval
    high: float
    is_clear: bool  # significant by the interval and by the sign test


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Several models' answers, item by item."""

    columns: list[Column] = field(default_factory=list)
    items: list[PairedItem] = field(default_factory=list)

    @property
    def scales(self) -> list[tuple[str, float]]:
        """The distinct scales in use."""
        return list(dict.fromkeys(column.scale for column in self.columns))

    @functools.cached_property
    def differences(self) -> list[Difference]:
        """All pairs of models on the same scale with at least two scored items in common; computed once."""
        found = []
        for j, other in enumerate(self.columns):
            for i, one in enumerate(self.columns[:j]):
                if one.scale != other.scale:
                    continue
                scores = [(item.answers[i], item.answers[j]) for item in self.items]
                known = [(a.score, b.score) for a, b in scores if a and b]
                both = [(x, y) for x, y in known if is_number(x) and is_number(y)]
                if len(both) < 2:
                    continue
                compared = compare_paired([a for a, _ in both], [b for _, b in both])
                found.append(
                    Difference(
                        one=other.label, other=one.label, score_name=one.score_name,
                        n=compared.n, mean=compared.difference, low=compared.low, high=compared.high,
                        is_clear=compared.is_significant,
                    )
                )  # fmt: skip
        return found

    @property
    def n_shared(self) -> int:
        """Number of items that every model answered."""
        return sum(all(answer is not None for answer in item.answers) for item in self.items)


def pair_items(columns: Sequence[Column]) -> Paired:
    """Pair answers by question, in order of first appearance; a repeated question remains two items."""
    places: dict[tuple[str, str, str, int], int] = {}
    found: list[tuple[Mapping[str, str], list[ModelAnswer | None], str]] = []
    for number, column in enumerate(columns):
        seen: dict[tuple[str, str, str], int] = {}
        for asked, given in zip(column.asked, column.given, strict=True):
            key = (asked["instruction"], asked["input"], asked["reference"])
            seen[key] = seen.get(key, 0) + 1
            place = places.setdefault((*key, seen[key]), len(found))
            if place == len(found):
                found.append((asked, [None] * len(columns), ""))
            known, answers, skill = found[place]
            answers[number] = given
            found[place] = (known, answers, skill or asked.get("skill", ""))  # a judge's file has no skills
    items = [
        PairedItem(
            instruction=asked["instruction"],
            input=asked["input"],
            reference=asked["reference"],
            skill=skill,
            answers=answers,
            spread=_spread(columns, answers),
        )
        for asked, answers, skill in found
    ]
    return Paired(columns=list(columns), items=items)


def browser_data(paired: Paired) -> dict[str, Any]:
    """The items for the page's script, with short keys, since there may be thousands."""
    return {
        "columns": [
            {"label": for_page(c.label), "score": for_page(c.score_name), "max": c.score_max, "run": c.run}
            for c in paired.columns
        ],
        "perPage": PER_PAGE,
        "items": [
            {
                "q": shown(item.instruction),
                "i": shown(item.input),
                "r": shown(item.reference),
                "s": shown(item.skill),
                "d": None if item.spread is None else round(item.spread, 4),
                "a": [None if answer is None else _short(answer) for answer in item.answers],
            }
            for item in paired.items
        ],
    }


def shown(text: str) -> str:
    """A text for the page: cut, and without characters that HTML does not allow."""
    return str(for_page(cut(text, LONGEST)))


def _short(answer: ModelAnswer) -> dict[str, Any]:
    short: dict[str, Any] = {"t": shown(answer.text), "p": answer.score}
    if answer.right is not None:
        short["ok"] = answer.right
    if answer.words:
        short["w"] = shown(answer.words)
    if answer.status != "scored":
        short["st"] = shown(answer.status)
    return short


def _spread(columns: Sequence[Column], answers: Sequence[ModelAnswer | None]) -> float | None:
    """The largest difference between two scores on the same scale, as a share of that scale."""
    by_scale: dict[tuple[str, float], list[float]] = {}
    for column, answer in zip(columns, answers):
        if answer is not None and answer.score is not None:
            by_scale.setdefault(column.scale, []).append(answer.score / column.score_max)
    gaps = [max(shares) - min(shares) for shares in by_scale.values() if len(shares) > 1]
    return max(gaps) if gaps else None
