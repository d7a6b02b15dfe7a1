"""Collect the events of a request's rows: texts, ends, counts and log probabilities."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from starlette.requests import Request

from scratchlm.core.protocols import Tokenizer
from scratchlm.generation.stopping import FinishedBy
from scratchlm.generation.token_bytes import bytes_of_token, text_of_token
from scratchlm.serving.jobs import GenerationJob, RowEvent
from scratchlm.serving.service import unless_gone

LOWEST_LOGPROB = -9999.0  # what OpenAI's protocol reports for a token that cannot occur


class TokenScore(NamedTuple):
    """A token with its log probability, and the most likely alternatives, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass
class RowText:
    """What one row has become so far; a template's lead before the answer is left out."""

    lead: str = ""
    text: str = ""
    scores: list[TokenScore] = field(default_factory=list)
    finished_by: FinishedBy | None = None
    _held: str | None = ""  # the beginning, while it could be the lead; None after it

    def take(self, event: RowEvent) -> tuple[str, list[TokenScore]]:
        """Add an event; returns the text that it adds to the answer, and the token unless that is only an end."""
        token = event.token
        new = [] if token.id is None else [_score(token.id, token.prob, token.top)]
        self.scores += new
        self.finished_by = token.finished_by
        piece = self._without_lead(token.text)
        self.text += piece
        return piece, new

    @property
    def finish_reason(self) -> str:
        """Why it ended, in the words of OpenAI's protocol and Ollama's."""
        return "length" if self.finished_by in ("length", None) else "stop"

    def _without_lead(self, piece: str) -> str:
        if self._held is None:
            return piece
        self._held += piece
        if self.lead.startswith(self._held) and len(self._held) < len(self.lead) and self.finished_by is None:
            return ""
        piece, self._held = self._held.removeprefix(self.lead), None
        return piece


async def collect_rows(job: GenerationJob, request: Request) -> list[RowText]:
    """Await the end of every row and close the job; ClientGoneError when the connection ends first."""
    rows = [RowText(row.lead) for row in job.rows]

    async def collect() -> None:
        async for events in job.events():
            for event in events:
                rows[event.row].take(event)

    try:
        await unless_gone(request, collect())
    finally:
        job.close()
    return rows


def _score(token_id: int, prob: float, top: tuple[tuple[int, float], ...]) -> TokenScore:
    exact = next((logprob for other, logprob in top if other == token_id), None)
    logprob = (math.log(prob) if prob > 0 else LOWEST_LOGPROB) if exact is None else exact
    return TokenScore(token_id, finite(logprob), tuple((other, finite(value)) for other, value in top))


def finite(logprob: float) -> float:
    """A log probability as JSON can hold it."""
    return max(logprob, LOWEST_LOGPROB)


def score_entry(tokenizer: Tokenizer, score: TokenScore) -> dict[str, Any]:
    """A token, its log probability and bytes, and the same of its alternatives, as OpenAI and Ollama write them."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        text, all_bytes = text_of_token(tokenizer, token_id), bytes_of_token(tokenizer, token_id)
        return {"token": text, "logprob": logprob, "bytes": all_bytes}

    return {**entry(score.id, score.logprob), "top_logprobs": [entry(*other) for other in score.top]}
