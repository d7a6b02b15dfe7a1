"""Judging protocols: a score from 0 to 100, a rubric from 1 to 10, a pairwise comparison, a yes-or-no checklist.

Untrusted texts in the question are enclosed in markers with a code, because an answer may contain instructions to the
judge (prompt injection). The code is a hash of the texts, so no text can contain its own code. Nothing is random: the
same item always gives the same question, so that a cache can find its reply.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.parse_reply import (
    occurs_in,
    read_coded_list,
    read_coded_number,
    read_coded_word,
    read_number,
)
from scratchlm.evaluation.judge.prompt_files import JudgePrompt, fill_in

LETTERS = "bcdfghjkmnpqrstvwxz"  # no vowels or digits, so that a code is neither a word nor a score
N_LETTERS = 8  # 19**8 codes, 17 billion
VERDICTS = {"A": 100.0, "tie": 50.0, "B": 0.0}  # points of the answer shown first
Reader = Callable[[str], "float | None"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question to a judge about one item, and the functions that parse its replies (None: not a score)."""

    order: str  # for a pair: "ab" shows the answer under test first, "ba" second; else ""
    system: str
    text: str
    reminder: str
    read: Reader
    read_again: Reader  # parses the reply to the reminder

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation up to the first reply."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.text}]


@dataclass(frozen=True, kw_only=True)
class JudgingProtocol:
    """A method of querying a judge; an item's score is the mean over its questions."""

    name: str
    low: int  # the scale
    high: int
    ask: Callable[[JudgePrompt, Item], list[Question]]

    def share(self, fraction: float) -> float:
        """The point at a fraction of the scale: 0.2 of 1 to 10 is 2.8."""
        return self.low + fraction * (self.high - self.low)

    def score_unasked(self, item: Item) -> float:
        """The score of an item with an empty answer: the scale's lowest point; in a pair the empty answer loses."""
        if item.other is None:
            return float(self.low)
        both = not item.answer.strip() and not item.other.strip()
        return self.share(0.5) if both else float(self.high if item.answer.strip() else self.low)


def code_for(texts: Sequence[str], *, purpose: str) -> str:
    """A code of eight letters that occurs in none of the texts; each purpose has its own code.

    Example:
        >>> code_for(["a cat"], purpose="fence") == code_for(["a cat"], purpose="fence")
        True
    """
    folded = [text.casefold() for text in texts]
    for attempt in itertools.count():
        digest = hashlib.sha256(json.dumps([purpose, attempt, *texts]).encode()).digest()
        number = int.from_bytes(digest, "big")
        code = "".join(LETTERS[number // len(LETTERS) ** i % len(LETTERS)] for i in range(N_LETTERS))
        if not any(code in text for text in folded):
            return code
    raise AssertionError("itertools.count() never ends")


def fenced(name: str, text: str, *, code: str) -> str:
    """Enclose a text between markers that name it and show where it ends.

    Example:
        >>> print(fenced("answer", "Score: 100", code="qwrtzpsd"))
        <<begin answer qwrtzpsd>>
        Score: 100
        <<end answer qwrtzpsd>>
    """
    return f"<<begin {name} {code}>>\n{text}\n<<end {name} {code}>>"


def _question(
    prompt: JudgePrompt,
    item: Item,
    answers: Mapping[str, tuple[str, str]],
    *,
    read: Callable[[str, str], float | None],
    read_first: Reader | None = None,
    order: str = "",
    lines: Callable[[str], Mapping[str, str]] = lambda reply_code: {},
) -> Question:
    """Fill in the prompt.

    answers: placeholder -> name and text of an answer. `read` parses a reply with its code; `read_first` the first one,
    if that needs no code. lines: further placeholders, from the reply's code.
    """
    texts = [item.task, item.reference, *(text for _, text in answers.values())]
    code, reply_code = code_for(texts, purpose="fence"), code_for(texts, purpose=f"reply {order}".strip())
    named = {"task": ("task", item.task), "reference": ("correct answer", item.reference), **answers}
    fences = {key: fenced(name, text, code=code) for key, (name, text) in named.items()}
    values = {"reply_code": reply_code, **lines(reply_code)}
    read_again = functools.partial(read, reply_code)
    return Question(
        order=order,
        system=prompt.system,
        text=fill_in(prompt.question, {"code": code, **fences, **values}),
        reminder=fill_in(prompt.reminder, values),
        read=read_first or read_again,
        read_again=read_again,
    )


def _ask_for_number(low: int, high: int) -> Callable[[JudgePrompt, Item], list[Question]]:
    def ask(prompt: JudgePrompt, item: Item) -> list[Question]:
        def read_first(reply: str) -> float | None:
            number, texts = read_number(reply, low=low, high=high), [item.task, item.reference, item.answer]
            return None if number is None or occurs_in(number, texts) else float(number)

        def read(code: str, reply: str) -> float | None:
            number = read_coded_number(reply, code=code, low=low, high=high)
            return None if number is None else float(number)

        answers = {"answer": ("model's answer", item.answer)}
        return [_question(prompt, item, answers, read=read, read_first=read_first)]

    return ask


def _ask_for_better(prompt: JudgePrompt, item: Item) -> list[Question]:
    assert item.other is not None, "a pair needs two answers"
    questions = []
    for order, first, second in (("ab", item.answer, item.other), ("ba", item.other, item.answer)):

        def read(code: str, reply: str, *, order: str = order) -> float | None:
            verdict = read_coded_word(reply, code=code, words=tuple(VERDICTS))
            if verdict is None:
                return None
            return VERDICTS[verdict] if order == "ab" else 100.0 - VERDICTS[verdict]

        answers = {"answer_a": ("answer A", first), "answer_b": ("answer B", second)}
        questions.append(_question(prompt, item, answers, read=read, order=order))
    return questions


def _ask_checklist(prompt: JudgePrompt, item: Item) -> list[Question]:
    n = len(prompt.questions)

    def read(code: str, reply: str) -> float | None:
        found = read_coded_list(reply, code=code, n=n)
        return None if found is None else 100.0 * sum(found) / n

    def lines(code: str) -> dict[str, str]:
        questions = (f"{i}. {question}" for i, question in enumerate(prompt.questions, start=1))
        replies = (f"{code} {number}: X" for number in range(1, n + 1))
        return {"questions": "\n".join(questions), "reply_lines": "\n".join(replies)}

    return [_question(prompt, item, {"answer": ("model's answer", item.answer)}, read=read, lines=lines)]


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        JudgingProtocol(name="score", low=0, high=100, ask=_ask_for_number(0, 100)),
        JudgingProtocol(name="rubric", low=1, high=10, ask=_ask_for_number(1, 10)),
        JudgingProtocol(name="pairwise", low=0, high=100, ask=_ask_for_better),
        JudgingProtocol(name="checklist", low=0, high=100, ask=_ask_checklist),
    )
}
