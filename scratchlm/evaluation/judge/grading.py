"""One item's way to its score: asked, reminded once, scored or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from scratchlm.core.errors import ServiceError
from scratchlm.evaluation.judge.asking import SilentJudgeError
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.prompt_files import JudgePrompt
from scratchlm.evaluation.judge.protocols import JudgingProtocol, Question
from scratchlm.evaluation.judge.replies import without_thoughts
from scratchlm.evaluation.judge.reply_store import ReplyStore

Status = Literal["scored", "unparsed", "failed", "empty"]
MAX_QUOTED = 400  # characters of an unreadable reply that the judge is shown again


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a judge said, and what was read in it; None is no score."""

    order: str  # as of the question: "" but for pairs
    attempt: int  # 1, or 2 after the reminder
    call: str
    text: str
    points: float | None

    def record(self) -> dict[str, Any]:
        """As a part of the item's line in the file."""
        return {
            "order": self.order,
            "attempt": self.attempt,
            "call": self.call,
            "reply": self.text,
            "points": self.points,
        }


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What became of an item.

    scored: a score was read. unparsed: the judge replied, twice, nothing that is a score. failed: it did not reply.
    empty: the answer says nothing; nobody was asked, and it scores the scale's lowest point.
    """

    status: Status
    score: float | None
    replies: tuple[Reply, ...] = ()
    problem: str = ""  # of a failed item: what the service said; of an unparsed one: that it only thought
    is_silent: bool = False  # of a failed item: nobody was there, the fault is not the question's
    figures: tuple[tuple[str, float], ...] = ()  # further scores of the offline judge, 0 to 1


class Grader(Protocol):
    """Somebody who gives one item its grade; may be called by several threads."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """The item's grade; an empty answer is only judged when that is asked for."""
        ...


class JudgeGrader:
    """Grades by what a judge replies."""

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
                is_silent=isinstance(error, SilentJudgeError),
            )
        known = [point for point in points if point is not None]
        if len(known) < len(points):
            is_thinking = any(
                r.points is None and r.text.strip() and not without_thoughts(r.text) for r in given
            )
            problem = "a reply holds nothing but its <think> block, or ends within it" if is_thinking else ""
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


def _reminder(question: Question, reply: str) -> Sequence[dict[str, str]]:
    quoted = reply if len(reply) <= MAX_QUOTED else f"{reply[:MAX_QUOTED]} [...]"
    if not quoted.strip():
        quoted = "(no words)"  # Ollama's client leaves empty content out, and some services refuse it
    return [{"role": "assistant", "content": quoted}, {"role": "user", "content": question.reminder}]
