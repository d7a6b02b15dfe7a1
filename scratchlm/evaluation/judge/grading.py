"""Grade one item: ask the judge, remind it once when the reply is no score, and record the outcome.

Also the offline grader, which needs no judge: it compares the words of answer and reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from scratchlm.core.errors import ServiceError
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.parse_reply import without_thoughts
from scratchlm.evaluation.judge.prompt_files import JudgePrompt
from scratchlm.evaluation.judge.protocols import JudgingProtocol, Question
from scratchlm.evaluation.judge.reply_store import ReplyStore
from scratchlm.evaluation.judge.service import JudgeUnreachableError
from scratchlm.evaluation.text_scores import edit_distance, exact_match, rouge_l, token_f1

Status = Literal["scored", "unparsed", "failed", "empty"]
MAX_QUOTED = 400  # characters of an unreadable reply that are quoted in the reminder
OFFLINE = "offline"
MAIN_FIGURE = (
    "token_f1"  # the offline score is 100 times this, so a partly right answer gets part of the points
)
FIGURES: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda answer, reference: float(exact_match(answer, reference)),
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "edit_distance": edit_distance,  # 0 for equal texts, 1 for unrelated ones; for all others higher is better
}
FIGURES_OF_EMPTY = dict.fromkeys(FIGURES, 0.0) | {"edit_distance": 1.0}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A judge's reply and the points read from it; None is no score."""

    order: str  # as of the question: "" but for pairs
    attempt: int  # 1, or 2 after the reminder
    call: str
    text: str
    points: float | None

    def record(self) -> dict[str, Any]:
        """As a part of the item's line in the result file."""
        return {
            "order": self.order,
            "attempt": self.attempt,
            "call": self.call,
            "reply": self.text,
            "points": self.points,
        }


@dataclass(frozen=True, kw_only=True)
class Grade:
    """The outcome for one item.

    scored: a score was read. unparsed: two replies, neither a score. failed: no reply. empty: the answer is empty; the
    judge was not asked, and the score is the scale's lowest point.
    """

    status: Status
    score: float | None
    replies: tuple[Reply, ...] = ()
    problem: str = ""  # failed: the service's message; unparsed: that the reply holds thoughts only
    is_unreachable: bool = False  # failed because the judge cannot be reached, whatever the question
    figures: tuple[tuple[str, float], ...] = ()  # further scores of the offline grader, 0 to 1


class Grader(Protocol):
    """Gives one item its grade; may be called by several threads."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """The item's grade; an empty answer is judged only with ask_if_empty."""
        ...


class JudgeGrader:
    """Grades items by a judge's replies."""

    def __init__(self, replies: ReplyStore, protocol: JudgingProtocol, prompt: JudgePrompt) -> None:
        self._replies = replies
        self._protocol = protocol
        self._prompt = prompt

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """Ask all of the protocol's questions about the item; the score is their mean."""
        if item.is_empty and not ask_if_empty:
            return Grade(status="empty", score=self._protocol.score_unasked(item))
        given: list[Reply] = []
        try:
            points = [self._points(question, given) for question in self._protocol.ask(self._prompt, item)]
        except ServiceError as error:
            return Grade(
                status="failed",
                score=None,
                replies=tuple(given),
                problem=str(error),
                is_unreachable=isinstance(error, JudgeUnreachableError),
            )
        known = [point for point in points if point is not None]
        if len(known) < len(points):
            only_thoughts = any(
                r.points is None and r.text.strip() and not without_thoughts(r.text) for r in given
            )
            problem = "a reply holds only its <think> block, or ends within it" if only_thoughts else ""
            return Grade(status="unparsed", score=None, replies=tuple(given), problem=problem)
        return Grade(status="scored", score=sum(known) / len(known), replies=tuple(given))

    def _points(self, question: Question, given: list[Reply]) -> float | None:
        messages = question.messages
        call, text = self._replies.ask(messages)
        points = question.read(without_thoughts(text))
        given.append(Reply(order=question.order, attempt=1, call=call, text=text, points=points))
        if points is None:
            call, text = self._replies.ask([*messages, *_reminder(question, without_thoughts(text))])
            points = question.read_again(without_thoughts(text))
            given.append(Reply(order=question.order, attempt=2, call=call, text=text, points=points))
        return points


class OfflineGrader:
    """Grades by overlap of words. The score, 0 to 100, is the token F1; the grade holds the other figures too."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """The item's grade; an empty answer has the worst value of every figure."""
        figures = FIGURES_OF_EMPTY
        if item.answer.strip():
            figures = {name: score(item.answer, item.reference) for name, score in FIGURES.items()}
        is_empty = item.is_empty and not ask_if_empty
        return Grade(
            status="empty" if is_empty else "scored",
            score=100 * figures[MAIN_FIGURE],
            figures=tuple(figures.items()),
        )


def _reminder(question: Question, reply: str) -> Sequence[dict[str, str]]:
    quoted = reply if len(reply) <= MAX_QUOTED else f"{reply[:MAX_QUOTED]} [...]"
    if not quoted.strip():
        quoted = "(no words)"  # Ollama's client leaves empty content out, and some services refuse it
    return [{"role": "assistant", "content": quoted}, {"role": "user", "content": question.reminder}]
