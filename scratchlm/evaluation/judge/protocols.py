"""The ways of asking: a score of 0 to 100, a rubric of 1 to 10, two answers beside each other, a list of yes or no."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scratchlm.evaluation.judge.fences import code_for, fenced
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.prompt_files import JudgePrompt, fill_in
from scratchlm.evaluation.judge.replies import (
    read_coded_list,
    read_coded_number,
    read_coded_word,
    read_number,
    stands_in,
)

VERDICTS = {"A": 100.0, "tie": 50.0, "B": 0.0}  # points of the answer shown first
Reader = Callable[[str], "float | None"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a judge is asked about an item, and how its replies are read: None is no score."""

    order: str  # of a pair: "ab" shows the answer under test first, "ba" second; else ""
    system: str
    text: str
    reminder: str
    read: Reader
    read_again: Reader  # the reply to the reminder

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation up to the first reply."""
        told = [{"role": "system", "content": self.system}] if self.system else []
        return [*told, {"role": "user", "content": self.text}]


@dataclass(frozen=True, kw_only=True)
class JudgingProtocol:
    """One way of asking; an item's score is the mean over its questions."""

    name: str
    low: int  # the scale
    high: int
    ask: Callable[[JudgePrompt, Item], list[Question]]

    def share(self, fraction: float) -> float:
        """The point that lies so far up the scale: 0.2 of 1 to 10 is 2.8."""
        return self.low + fraction * (self.high - self.low)

    def score_unasked(self, item: Item) -> float:
        """What an item with an empty answer gets: the scale's lowest point; of a pair the empty answer loses."""
        if item.other is None:
            return float(self.low)
        both = not item.answer.strip() and not item.other.strip()
        return self.share(0.5) if both else float(self.high if item.answer.strip() else self.low)


def _ask_for_number(low: int, high: int) -> Callable[[JudgePrompt, Item], list[Question]]:
    def ask(prompt: JudgePrompt, item: Item) -> list[Question]:
        texts = [item.task, item.reference, item.answer]
        code, reply_code = code_for(texts, purpose="fence"), code_for(texts, purpose="reply")

        def read(reply: str) -> float | None:
            number = read_number(reply, low=low, high=high)
            return None if number is None or stands_in(number, texts) else float(number)

        def read_again(reply: str) -> float | None:
            number = read_coded_number(reply, code=reply_code, low=low, high=high)
            return None if number is None else float(number)

        values = _blocks(item, code) | {"answer": fenced("model's answer", item.answer, code=code)}
        return [_question(prompt, values, {"reply_code": reply_code}, read, read_again)]

    return ask


def _ask_for_better(prompt: JudgePrompt, item: Item) -> list[Question]:
    assert item.other is not None, "a pair needs two answers"
    return [
        _pair(prompt, item, order="ab", first=item.answer, second=item.other),
        _pair(prompt, item, order="ba", first=item.other, second=item.answer),
    ]


def _pair(prompt: JudgePrompt, item: Item, *, order: str, first: str, second: str) -> Question:
    texts = [item.task, item.reference, first, second]
    code, reply_code = code_for(texts, purpose="fence"), code_for(texts, purpose=f"reply {order}")

    def read(reply: str) -> float | None:
        verdict = read_coded_word(reply, code=reply_code, words=tuple(VERDICTS))
        if verdict is None:
            return None
        return VERDICTS[verdict] if order == "ab" else 100.0 - VERDICTS[verdict]

    values = _blocks(item, code) | {
        "answer_a": fenced("answer A", first, code=code),
        "answer_b": fenced("answer B", second, code=code),
        "reply_code": reply_code,
    }
    return _question(prompt, values, {"reply_code": reply_code}, read, read, order=order)


def _ask_a_list(prompt: JudgePrompt, item: Item) -> list[Question]:
    texts = [item.task, item.reference, item.answer]
    code, reply_code = code_for(texts, purpose="fence"), code_for(texts, purpose="reply")
    n = len(prompt.questions)

    def read(reply: str) -> float | None:
        found = read_coded_list(reply, code=reply_code, n=n)
        return None if found is None else 100.0 * sum(found) / n

    reply_lines = _lines([f"{reply_code} {number}: X" for number in range(1, n + 1)])
    values = _blocks(item, code) | {
        "answer": fenced("model's answer", item.answer, code=code),
        "questions": _lines([f"{i}. {question}" for i, question in enumerate(prompt.questions, start=1)]),
        "reply_lines": reply_lines,
        "reply_code": reply_code,
    }
    return [_question(prompt, values, {"reply_lines": reply_lines}, read, read)]


def _question(
    prompt: JudgePrompt,
    values: Mapping[str, str],
    reminded: Mapping[str, str],
    read: Callable[[str], float | None],
    read_again: Callable[[str], float | None],
    *,
    order: str = "",
) -> Question:
    """The prompt's texts with these values, and how replies to the question and to its reminder are read."""
    return Question(
        order=order,
        system=prompt.system,
        text=fill_in(prompt.question, values),
        reminder=fill_in(prompt.reminder, reminded),
        read=read,
        read_again=read_again,
    )


def _blocks(item: Item, code: str) -> dict[str, str]:
    return {
        "code": code,
        "task": fenced("task", item.task, code=code),
        "reference": fenced("correct answer", item.reference, code=code),
    }


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        JudgingProtocol(name="score", low=0, high=100, ask=_ask_for_number(0, 100)),
        JudgingProtocol(name="rubric", low=1, high=10, ask=_ask_for_number(1, 10)),
        JudgingProtocol(name="pairwise", low=0, high=100, ask=_ask_for_better),
        JudgingProtocol(name="checklist", low=0, high=100, ask=_ask_a_list),
    )
}
