"""OpenAI's `/v1/responses`, without state: each request holds the whole conversation."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import JSONResponse

from scratchlm.serving.answers import RowText, collect_rows
from scratchlm.serving.documented import CLIENT_ERRORS, streamed
from scratchlm.serving.jobs import GenerationJob, RowRequest
from scratchlm.serving.json_body import Strict, StrictJSONRoute
from scratchlm.serving.openai_api import DEFAULTS, refuse_tools
from scratchlm.serving.openai_schemas import Content, Unused, content_text
from scratchlm.serving.prompts import ChatTurn, chat_prompt, rows_of
from scratchlm.serving.request_errors import RequestError, error_body
from scratchlm.serving.schemas import MAX_ITEMS, AnswerModel, ModelId, NewTokens, Sampling
from scratchlm.serving.service import Service
from scratchlm.serving.streams import EVENT_STREAM, JobStream, sse


class InputMessage(Strict):
    """One message of the input; an earlier answer of `/v1/responses` may be sent back as it came."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: Literal["completed", "incomplete"] | None = None
    phase: str | None = None


class TextFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> TextFormat:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("schema must be given exactly when type is json_schema")
        return self


class TextOutput(Strict):
    """Settings of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None

    def settings(self) -> dict[str, Any]:
        """The constraint of GenerationConfig."""
        if self.format is None or self.format.type == "text":
            return {}
        return {"json_schema": self.format.schema_ or {"type": "object"}}


class ResponsesRequest(Sampling, Unused):
    """`/v1/responses`."""

    model: ModelId
    input: str | Annotated[list[InputMessage], Field(min_length=1, max_length=MAX_ITEMS)]
    instructions: str | None = None
    max_output_tokens: NewTokens | None = None
    text: TextOutput | None = None
    stream: bool | None = None
    store: Literal[False] | None = None
    previous_response_id: str | None = Field(default=None, description="refused: this server keeps no state")
    tools: list[Any] | None = Field(default=None, description="refused: the models here call no tools")
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None


class OutputText(AnswerModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any]
    logprobs: list[Any]


class OutputMessage(AnswerModel):
    """The assistant's message."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class ResponsesAnswer(AnswerModel):
    """Answer of `/v1/responses`; streamed, its events have the names of OpenAI's."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[OutputMessage]


def responses_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(
        prefix="/v1", route_class=StrictJSONRoute, tags=["OpenAI"], responses=CLIENT_ERRORS["openai"]
    )

    @router.post("/responses", response_model=ResponsesAnswer, responses=streamed(EVENT_STREAM))
    async def respond(body: ResponsesRequest, request: Request) -> Any:
        """Answer a conversation; nothing is stored."""
        refuse_tools(body.tools)
        if body.previous_response_id is not None:
            message = "this server keeps no state; send the whole conversation as input."
            raise RequestError(message, param="previous_response_id")
        model = service.models.find(body.model)
        settings = body.settings(**DEFAULTS) | (body.text.settings() if body.text else {})

        def prepare() -> list[RowRequest]:
            prompt = chat_prompt(model, _turns(body))
            return rows_of(model, prompt, settings, max_new_tokens=body.max_output_tokens)

        job = await service.generate(model, 1, prepare)
        answer = _Response(body, job)
        if body.stream:
            pieces, path = answer.events(RowText(job.rows[0].lead)), request.url.path
            return JobStream(
                job, pieces, media_type=EVENT_STREAM, error_piece=lambda e: answer.error_event(path, e)
            )
        [row] = await collect_rows(job, request)
        return JSONResponse(answer.whole(row))

    return router


def _turns(body: ResponsesRequest) -> list[ChatTurn]:
    given = [ChatTurn("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        return [*given, ChatTurn("user", body.input)]
    return [*given, *(ChatTurn(message.role, content_text(message.content)) for message in body.input)]


class _Response:
    """One answer in its parts: the response, its message, and the message's text."""

    def __init__(self, body: ResponsesRequest, job: GenerationJob) -> None:
        self.body, self.job = body, job
        self.id = f"resp_{secrets.token_hex(16)}"
        self.message_id = f"msg_{secrets.token_hex(16)}"
        self.created_at = int(time.time())
        self._number = 0

    def whole(self, row: RowText) -> dict[str, Any]:
        status = "completed" if row.finish_reason == "stop" else "incomplete"
        n_prompt, n_new = self.job.n_prompt_tokens, self.job.n_tokens
        return {
            **self._head(status),
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [self._message(status, [_part(row.text)])],
            "usage": {
                "input_tokens": n_prompt,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": n_new,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": n_prompt + n_new,
            },
        }

    async def events(self, row: RowText) -> AsyncIterator[str]:
        """The streamed events, in OpenAI's order."""
        place = {"item_id": self.message_id, "output_index": 0, "content_index": 0}
        begun = self._head("in_progress") | {"output": [], "usage": None, "incomplete_details": None}
        item = self._message("in_progress", [])
        yield (
            self._event("response.created", response=begun)
            + self._event("response.in_progress", response=begun)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", **place, part=_part(""))
        )
        async for events in self.job.events():
            text = "".join(row.take(event)[0] for event in events)
            if text:
                yield self._event("response.output_text.delta", **place, delta=text, logprobs=[])
        whole = self.whole(row)
        name = "response.completed" if whole["status"] == "completed" else "response.incomplete"
        yield (
            self._event("response.output_text.done", **place, text=row.text, logprobs=[])
            + self._event("response.content_part.done", **place, part=_part(row.text))
            + self._event("response.output_item.done", output_index=0, item=whole["output"][0])
            + self._event(name, response=whole)
        )

    def error_event(self, path: str, error: RequestError) -> str:
        found = error_body(path, error)["error"]
        return self._event("error", code=found["code"], message=found["message"], param=found["param"])

    def _head(self, status: str) -> dict[str, Any]:
        body = self.body
        form = {"format": {"type": "text"}} if body.text is None else body.text.model_dump(by_alias=True)
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "model": self.job.model.id,
            "error": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": DEFAULTS["temperature"] if body.temperature is None else body.temperature,
            "text": form,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
        }

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _event(self, name: str, **values: Any) -> str:
        self._number += 1
        return sse({"type": name, "sequence_number": self._number - 1, **values}, event=name)


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
