"""The generation of one request: its rows, and the events that reach it from the worker's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.requests import TokenEvent
from scratchlm.generation.trace import RowTrace
from scratchlm.serving.models import ServedModel


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """One text to generate."""

    prompt_ids: Sequence[int]
    config: GenerationConfig
    copy: int = 0  # number among equal prompts of one seed, which get different texts
    lead: str = ""  # of the answer, left out of its text; see RowText
    n_logprobs: int = 0  # alternatives to report at each step
    trace: RowTrace | None = None  # filled by the worker: a token's step is in it before its event arrives


class RowEvent(NamedTuple):
    """A new token, or the end, of a row."""

    row: int  # its number among the request's
    token: TokenEvent
    made_s: float  # when the model made it, as time.perf_counter() counts


class GenerationJob:
    """Rows on their way through the worker; everything but `post` belongs to the event loop.

    `close` may be called at any time and more than once: rows that still run are cancelled, and the places that the
    request held are free again.
    """

    def __init__(
        self, model: ServedModel, *, cancel: Callable[[GenerationJob], None], release: Callable[[], None]
    ) -> None:
        self.model = model
        self.rows: Sequence[RowRequest] = ()
        self.keep_alive: float | None = None  # how long the model shall stay loaded; see ServedModel.keep
        self.opened_s = time.perf_counter()
        self.first_token_s: float | None = None
        self.n_tokens = 0
        self.is_closed = False
        self._cancel = cancel
        self._release = release
        self.n_unfinished = 0  # rows in the worker
        self._arrived: asyncio.Queue[RowEvent | BaseException] = asyncio.Queue()
        self.accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def n_prompt_tokens(self) -> int:
        """Tokens of the prompts; copies of one prompt count once."""
        return sum(len(row.prompt_ids) for row in self.rows if row.copy == 0)

    def accept(self) -> None:
        """The engine has checked and queued every row."""
        if not self.accepted.done():
            self.accepted.set_result(None)

    def deliver(self, item: RowEvent | BaseException) -> None:
        """Take an event, or the error that ends the job."""
        if isinstance(item, BaseException):
            if not self.accepted.done():
                self.accepted.set_exception(item)
                return
        elif item.token.id is not None:
            self.n_tokens += 1
            if self.first_token_s is None:
                self.first_token_s = item.made_s
        self._arrived.put_nowait(item)

    async def events(self) -> AsyncIterator[list[RowEvent]]:
        """Yield what has arrived, several events at once where the client is slower than the model.

        Raises: the error that ended the job.
        """
        while self.n_unfinished:
            items = [await self._arrived.get()]
            while not self._arrived.empty():
                items.append(self._arrived.get_nowait())
            failure = next((item for item in items if isinstance(item, BaseException)), None)
            found = [item for item in items if isinstance(item, RowEvent)]
            self.n_unfinished -= sum(event.token.finished_by is not None for event in found)
            if found:
                yield found
            if failure is not None:
                raise failure

    def close(self) -> None:
        """Free the request's places and cancel the rows that still run."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.n_unfinished:
            self._cancel(self)
        if self.accepted.done() and not self.accepted.cancelled():
            self.accepted.exception()  # seen, so that asyncio does not report it as lost
        self._release()
