"""Judges without a model, and answers to judge."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from scratchlm.core.errors import ServiceError
from scratchlm.evaluation.judge.grading import JudgeGrader
from scratchlm.evaluation.judge.items import Item
from scratchlm.evaluation.judge.prompt_files import read_prompt
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.reply_store import ReplyStore

Messages = Sequence[Mapping[str, str]]


@dataclass
class ScriptedJudge:
    """A judge whose replies are a function of the conversation; None is a service that fails."""

    says: Callable[[Messages], str | None]
    name: str = "fake:judge"
    identity: str = "fake:judge at temperature 0"
    asked: list[list[dict[str, str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def ask(self, messages: Messages) -> str:
        with self._lock:
            self.asked.append([dict(message) for message in messages])
        reply = self.says(messages)
        if reply is None:
            raise ServiceError("the judge should answer, found nobody; start it.")
        return reply


@pytest.fixture
def scripted_judge() -> type[ScriptedJudge]:
    return ScriptedJudge


@pytest.fixture
def make_item() -> Callable[..., Item]:
    def make(answer: str = "It is blue.", *, number: int = 0, other: str | None = None) -> Item:
        return Item(
            instruction=f"What colour is thing {'abcdefghij'[number % 10]}{'klmnopqrst'[number // 10 % 10]}?",
            input="",
            reference=["It is red.", "A green one.", "Blue, like the sky."][number % 3],
            answer=answer,
            other=other,
        )

    return make


@pytest.fixture
def grader_of() -> Callable[..., JudgeGrader]:
    """A grader around a judge, with the packaged prompt."""

    def make(judge: ScriptedJudge, protocol: str = "score") -> JudgeGrader:
        return JudgeGrader(ReplyStore(judge), PROTOCOLS[protocol], read_prompt(protocol))

    return make
