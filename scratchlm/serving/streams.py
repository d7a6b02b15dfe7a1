"""Streamed answers: pieces of text that end properly, also when something fails, and a job that ends with them."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from scratchlm.serving.jobs import GenerationJob
from scratchlm.serving.request_errors import RequestError, as_request_error

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"
_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
DONE = "data: [DONE]\n\n"  # the last event of OpenAI's streams, and of ours


class JobStream(StreamingResponse):
    """Send what a job generates; when the client is gone, or has everything, the job is closed."""

    def __init__(
        self,
        job: GenerationJob,
        pieces: AsyncIterator[str],
        *,
        media_type: str,
        error_piece: Callable[[RequestError], str],
    ) -> None:
        super().__init__(
            _with_error(pieces, error_piece), media_type=media_type, headers={"cache-control": "no-store"}
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until the end, or until the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close()


async def _with_error(
    pieces: AsyncIterator[str], error_piece: Callable[[RequestError], str]
) -> AsyncIterator[str]:
    """The pieces; an error on the way becomes the last one, because the status has been sent already."""
    try:
        async for piece in pieces:
            yield piece
    except Exception as error:  # noqa: BLE001  (of any kind: it is this request's, and it is logged)
        yield error_piece(as_request_error(error))


def sse(value: Any, *, event: str | None = None) -> str:
    """A server-sent event."""
    name = "" if event is None else f"event: {event}\n"
    return f"{name}data: {_COMPACT.encode(value)}\n\n"


def ndjson(value: Any) -> str:
    """A line of JSON, as Ollama's protocol streams them."""
    return f"{_COMPACT.encode(value)}\n"
