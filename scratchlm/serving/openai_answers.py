"""Answers of OpenAI's protocol: whole, or streamed as server-sent events."""

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from scratchlm.generation.token_bytes import text_of_token
from scratchlm.serving.answers import RowText, TokenScore, collect_rows, score_entry
from scratchlm.serving.jobs import GenerationJob
from scratchlm.serving.openai_schemas import ChatRequest, CompletionRequest
from scratchlm.serving.request_errors import error_body
from scratchlm.serving.scoring import score_prompt
from scratchlm.serving.service import Service
from scratchlm.serving.streams import DONE, EVENT_STREAM, JobStream, sse


class _Form:
    """What both kinds of answer share: id, time, rows and usage."""

    id_prefix, kind, chunk_kind = "", "", ""

    def __init__(self, job: GenerationJob) -> None:
        self.job = job
        self.rows = [RowText(row.lead) for row in job.rows]
        self.id = f"{self.id_prefix}-{secrets.token_hex(12)}"
        self.created = int(time.time())

    def head(self, kind: str) -> dict[str, Any]:
        """The fields that every answer and every piece has."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.job.model.id}

    def usage(self) -> dict[str, int]:
        """Numbers of tokens so far."""
        n_prompt, n_new = self.job.n_prompt_tokens, self.job.n_tokens
        return {"prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new}

    def first_choices(self) -> list[dict[str, Any]]:
        """Choices to stream before the first token."""
        return []


class ChatForm(_Form):
    """Answers of `/v1/chat/completions`."""

    id_prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, job: GenerationJob, *, has_logprobs: bool) -> None:
        super().__init__(job)
        self.has_logprobs = has_logprobs

    def first_choices(self) -> list[dict[str, Any]]:
        """The role, before the first token."""
        delta = {"role": "assistant", "content": ""}
        return [
            {"index": i, "delta": delta, "logprobs": None, "finish_reason": None}
            for i in range(len(self.rows))
        ]

    def delta(
        self, index: int, text: str, scores: Sequence[TokenScore], reason: str | None
    ) -> dict[str, Any]:
        """A piece of an answer."""
        delta = {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": self._logprobs(scores), "finish_reason": reason}

    def choice(self, index: int) -> dict[str, Any]:
        """A whole answer."""
        row = self.rows[index]
        message = {"role": "assistant", "content": row.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(row.scores),
            "finish_reason": row.finish_reason,
        }

    def _logprobs(self, scores: Sequence[TokenScore]) -> dict[str, Any] | None:
        if not self.has_logprobs:
            return None
        return {"content": [score_entry(self.job.model.tokenizer, score) for score in scores]}


class TextForm(_Form):
    """Answers of `/v1/completions`."""

    id_prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, job: GenerationJob, *, n_logprobs: int | None) -> None:
        super().__init__(job)
        self.n_logprobs = n_logprobs
        self.echoed: list[tuple[str, list[TokenScore | None]]] = [("", [])] * len(job.rows)
        self.offsets = [0] * len(job.rows)

    async def read_prompts(self, service: Service, prompts: Sequence[str | list[int]], n: int) -> None:
        """Score the prompts, which the answers begin with."""
        model = self.job.model
        for i, prompt in enumerate(prompts):
            ids = self.job.rows[i * n].prompt_ids
            scores: list[TokenScore | None] = []
            if self.n_logprobs is not None:
                scores = await service.call(model, partial(score_prompt, ids=ids, n_top=self.n_logprobs))
            shown = prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)
            self.echoed[i * n : (i + 1) * n] = [(shown, scores)] * n

    def delta(
        self, index: int, text: str, scores: Sequence[TokenScore], reason: str | None
    ) -> dict[str, Any]:
        """A piece of a completion."""
        logprobs = self._logprobs(index, list(scores))
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def choice(self, index: int) -> dict[str, Any]:
        """A whole completion, after its prompt where that is to be echoed."""
        row, (prompt, scores) = self.rows[index], self.echoed[index]
        ids = self.job.rows[index].prompt_ids
        logprobs = self._logprobs(index, [*scores, *row.scores], first_id=ids[0] if scores else None)
        reason = row.finish_reason
        return {"index": index, "text": prompt + row.text, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(
        self, index: int, scores: Sequence[TokenScore | None], *, first_id: int | None = None
    ) -> dict[str, Any] | None:
        if self.n_logprobs is None:
            return None
        tokenizer = self.job.model.tokenizer
        tokens, offsets = [], []
        for score in scores:
            token_id = first_id if score is None else score.id
            tokens.append("" if token_id is None else text_of_token(tokenizer, token_id))
            offsets.append(self.offsets[index])
            self.offsets[index] += len(tokens[-1])
        top = [None if s is None else self._top(s) for s in scores]
        return {
            "tokens": tokens,
            "token_logprobs": [None if s is None else s.logprob for s in scores],
            "top_logprobs": top if self.n_logprobs else None,
            "text_offset": offsets,
        }

    def _top(self, score: TokenScore) -> dict[str, float]:
        """The alternatives by text; of two with one text, the more likely."""
        found: dict[str, float] = {}
        for token_id, logprob in score.top:
            found.setdefault(text_of_token(self.job.model.tokenizer, token_id), logprob)
        return found


async def respond(
    request: Request, form: ChatForm | TextForm, body: ChatRequest | CompletionRequest
) -> Response:
    """The answer to a request whose job runs: whole, or streamed as server-sent events."""
    if body.stream:
        wants_usage = bool(body.stream_options and body.stream_options.include_usage)
        pieces = _events(form, wants_usage=wants_usage)
        path = request.url.path
        return JobStream(
            form.job, pieces, media_type=EVENT_STREAM, error_piece=lambda e: sse(error_body(path, e)) + DONE
        )
    form.rows = await collect_rows(form.job, request)
    choices = [form.choice(i) for i in range(len(form.rows))]
    return JSONResponse({**form.head(form.kind), "choices": choices, "usage": form.usage()})


async def _events(form: ChatForm | TextForm, *, wants_usage: bool) -> AsyncIterator[str]:
    usage: dict[str, Any] = {"usage": None} if wants_usage else {}

    def chunk(choice: dict[str, Any]) -> str:
        return sse({**form.head(form.chunk_kind), "choices": [choice], **usage})

    if first := form.first_choices():
        yield "".join(map(chunk, first))
    async for events in form.job.events():
        pieces = []
        for event in events:
            row = form.rows[event.row]
            text, new = row.take(event)
            if text or new or row.finished_by is not None:
                reason = None if row.finished_by is None else row.finish_reason
                pieces.append(chunk(form.delta(event.row, text, new, reason)))
        yield "".join(pieces)
    if wants_usage:
        yield sse({**form.head(form.chunk_kind), "choices": [], "usage": form.usage()})
    yield DONE
