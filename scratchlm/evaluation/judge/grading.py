"""Grade one item: query the judge, send one reminder when the reply is not a score, and record the result.

The offline grader needs no judge: it compares the words of answer and reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

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
MAIN_FIGURE = "token_f1"  # the offline score is 100 times this, which gives partial credit
FIGURES: dict[str, Callable[[str, str], float]] = {
    "exact_match": lambda answer, reference: float(exact_match(answer, reference)),
    "token_f1": token_f1,
    "rouge_l": rouge_l,
    "edit_distance": edit_distance,  # 0 for equal texts; for all others higher is better
}
FIGURES_OF_EMPTY = dict.fromkeys(FIGURES, 0.0) | {"edit_distance": 1.0}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A judge's reply and the points parsed from it; None means that it is not a score."""

    order: str  # as of the question; "" except for pairs
    attempt: int  # 1, or 2 after the reminder
    call: str
    text: str
    points: float | None

    def record(self) -> dict[str, Any]:
        """The values for the item's line in the result file."""
        texts = {"order": self.order, "attempt": self.attempt, "call": self.call, "reply": self.text}
        return {**texts, "points": self.points}


@dataclass(frozen=True, kw_only=True)
class Grade:
    """The result of grading one item.

    scored: a reply was parsed as a score. unparsed: two replies, neither a score. failed: no reply. empty:
    the answer is empty, so the judge was not queried and the score is the scale's lowest point.
    """

    status: Status
    score: float | None
    replies: tuple[Reply, ...] = ()
    problem: str = ""  # failed: the service's message; unparsed: a note if the reply is only reasoning
    is_unreachable: bool = False  # failed because the judge cannot be reached
    figures: tuple[tuple[str, float], ...] = ()  # further scores of the offline grader, 0 to 1


@dataclass(frozen=True)
class JudgeGrader:
    """Grades items by a judge's replies; may be called by several threads."""

    replies: ReplyStore
    protocol: JudgingProtocol
    prompt: JudgePrompt

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """Send all questions of the protocol about the item; the score is the mean.

        An empty answer is judged only with ask_if_empty.
        """
        if item.is_empty and not ask_if_empty:
            return Grade(status="empty", score=self.protocol.score_unasked(item))
        given: list[Reply] = []
        try:
            points = [self._points(question, given) for question in self.protocol.ask(self.prompt, item)]
        except ServiceError as error:
            is_unreachable = isinstance(error, JudgeUnreachableError)
            failed = Grade(status="failed", score=None, problem=str(error), is_unreachable=is_unreachable)
            return replace(failed, replies=tuple(given))
        known = [point for point in points if point is not None]
        if len(known) < len(points):
            unread = [reply.text for reply in given if reply.points is None]
            only_thoughts = any(text.strip() and not without_thoughts(text) for text in unread)
            problem = "a reply holds only its <think> block, or ends within it" if only_thoughts else ""
            return Grade(status="unparsed", score=None, replies=tuple(given), problem=problem)
        return Grade(status="scored", score=sum(known) / len(known), replies=tuple(given))

    def _points(self, question: Question, given: list[Reply]) -> float | None:
        messages = question.messages
        for attempt, read in enumerate((question.read, question.read_again), start=1):
            call, text = self.replies.ask(messages)
            points = read(without_thoughts(text))
            given.append(Reply(order=question.order, attempt=attempt, call=call, text=text, points=points))
            if points is not None:
                return points
            messages = [*messages, *_reminder(question, without_thoughts(text))]
        return None


class OfflineGrader:
    """Grades by word overlap. The score, 0 to 100, is the token F1; the grade has the other measures too."""

    def grade(self, item: Item, *, ask_if_empty: bool = False) -> Grade:
        """Grade the item; an empty answer gets the worst value of every measure."""
        figures = FIGURES_OF_EMPTY
        if item.answer.strip():
            figures = {name: score(item.answer, item.reference) for name, score in FIGURES.items()}
        is_empty = item.is_empty and not ask_if_empty
        return Grade(
            status="empty" if is_empty else "scored",
            score=100 * figures[MAIN_FIGURE],
            figures=tuple(figures.items()),
        )


Grader: TypeAlias = JudgeGrader | OfflineGrader


def _reminder(question: Question, reply: str) -> Sequence[dict[str, str]]:
    quoted = reply if len(reply) <= MAX_QUOTED else f"{reply[:MAX_QUOTED]} [...]"
    if not quoted.strip():
        quoted = "(no words)"  # Ollama's client omits empty content, and some services reject it
    return [{"role": "assistant", "content": quoted}, {"role": "user", "content": question.reminder}]
