"""The thread that runs the models: it owns every engine, and the event loop only sends it commands."""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

from scratchlm.generation.engine import Engine, EngineStats
from scratchlm.serving.jobs import GenerationJob, RowEvent
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.models import ModelList, ServedModel
from scratchlm.serving.request_errors import RequestError

T = TypeVar("T")
logger = logging.getLogger(__name__)

IDLE_BEAT_S = 0.25  # heartbeat while there is nothing to do
SMALL_MODEL = 4_000_000  # parameters; below it, threads that wait for each other cost more than they help


@dataclass(kw_only=True)
class _Running:
    """The engine of a model and the rows in it; only the worker's thread uses it."""

    engine: Engine
    # The engine's number of a text -> its job, and its row there.
    rows: dict[int, tuple[GenerationJob, int]] = field(default_factory=dict)


class Worker:
    """One thread for all models: it takes commands, steps each engine that has work, and sends the events back.

    A failure of one request ends that request. `beat` is the time of the last completed round.
    """

    def __init__(self, models: ModelList, *, n_slots: int, cache_bytes: int) -> None:
        self.models = models
        self.beat = time.monotonic()
        self.stats: dict[str, EngineStats] = {}  # by model, as of the last step
        self._n_slots, self._cache_bytes = n_slots, cache_bytes
        self._running: dict[ServedModel, _Running] = {}
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._outbox: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = False
        self._ends_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="scratchlm-worker", daemon=True)

    # Called from the event loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; results are delivered in `loop`."""
        self._loop = loop
        self._thread.start()

    async def warm_up(self) -> None:
        """Build every engine, so that no request waits for a kernel to be compiled.

        Raises: ConfigError when the cache of a model does not fit its memory.
        """
        for model in self.models:
            if model.kind != "classification":
                await self.call(model, lambda lm, model=model: self._engine_of(model))  # type: ignore[misc]

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """End the thread; requests that are still running fail."""
        self._stops = True
        self._commands.put(lambda: None)
        self._thread.join(timeout_s)

    def drain(self, seconds: float) -> None:
        """Let running requests go on for so long; then they fail. May be called from a signal handler."""
        self._ends_at = time.monotonic() + seconds

    def submit(self, job: GenerationJob) -> None:
        """Generate the rows of a job."""
        self._commands.put(partial(self._add, job))
        if not self._thread.is_alive():
            job.deliver(_unavailable("the server's worker has ended"))

    def cancel(self, job: GenerationJob) -> None:
        """Free the slots of a job's rows; no further events come."""
        self._commands.put(partial(self._drop, job))

    async def call(
        self, model: ServedModel, function: Callable[[LanguageModel], T], *, keep_alive: float | None = None
    ) -> T:
        """Run a function on a loaded model in the worker's thread, between two steps."""

        def run() -> T:
            lm = self._loaded(model)
            model.keep(keep_alive)
            return function(lm)

        future: Future[T] = Future()
        self._commands.put(partial(self._calls.append, (future, run)))
        if not self._thread.is_alive():
            raise _unavailable("the server's worker has ended")
        return await asyncio.wrap_future(future)

    @property
    def silence_s(self) -> float:
        """Time since the last completed round."""
        return time.monotonic() - self.beat

    def is_alive(self, *, stuck_after_s: float) -> bool:
        """Whether the thread runs and has completed a round lately."""
        return self._thread.is_alive() and self.silence_s < stuck_after_s

    # In the worker's thread

    def _run(self) -> None:
        try:
            while not self._stops:
                self.beat = time.monotonic()
                self._take_commands()
                if self._calls:
                    self._call(*self._calls.popleft())
                for model, running in list(self._running.items()):
                    if running.engine.has_work:
                        self._step(model, running)
                if self._ends_at is not None and time.monotonic() > self._ends_at:
                    self._fail_all("the server is shutting down")
                self._unload_idle()
                self._send()
        finally:
            self._end()

    def _take_commands(self) -> None:
        has_work = bool(self._calls) or any(one.engine.has_work for one in self._running.values())
        with contextlib.suppress(queue.Empty):
            if not has_work:
                self._commands.get(timeout=IDLE_BEAT_S)()
            while True:
                self._commands.get_nowait()()

    def _add(self, job: GenerationJob) -> None:
        added: list[int] = []
        try:
            running = self._engine_of(job.model)
            for number, row in enumerate(job.rows):
                row_id = running.engine.add(
                    row.prompt_ids,
                    row.config,
                    tokenizer=job.model.tokenizer,
                    copy=row.copy,
                    n_top=row.n_logprobs,
                    trace=row.trace,
                )
                added.append(row_id)
                running.rows[row_id] = (job, number)
        except Exception as error:  # noqa: BLE001  (of any kind: it is this request's, and the others go on)
            self._drop(job)
            self._outbox.append(partial(job.deliver, error))
        else:
            job.model.keep(job.keep_alive)  # only now that its text keeps the model loaded
            self._outbox.append(job.accept)

    def _drop(self, job: GenerationJob) -> None:
        running = self._running.get(job.model)
        if running is None:
            return
        for row_id in [row_id for row_id, (owner, _) in running.rows.items() if owner is job]:
            running.engine.cancel(row_id)
            del running.rows[row_id]

    def _step(self, model: ServedModel, running: _Running) -> None:
        try:
            events = running.engine.step()
        except Exception as error:  # noqa: BLE001  (see _add)
            self._blame_newest(running, error)
            return
        finally:
            self.stats[model.id] = running.engine.stats
        made_s = time.perf_counter()
        for event in events:
            if event.row not in running.rows:
                continue  # another text of its request failed in this step
            job, number = running.rows[event.row]
            if event.finished_by is not None:
                del running.rows[event.row]
            if event.error is not None:
                self._drop(job)
            self._outbox.append(partial(job.deliver, event.error or RowEvent(number, event, made_s)))

    def _blame_newest(self, running: _Running, error: BaseException) -> None:
        """End the newest request, whose rows changed what had worked until then; the others are tried again."""
        if not running.rows:
            raise error
        job, _ = running.rows[next(reversed(running.rows))]
        self._drop(job)
        self._outbox.append(partial(job.deliver, error))

    def _call(self, future: Future[T], function: Callable[[], T]) -> None:
        if not future.set_running_or_notify_cancel():
            return  # the client is gone
        try:
            future.set_result(function())
        except Exception as error:  # noqa: BLE001  (see _add)
            future.set_exception(error)

    def _loaded(self, model: ServedModel) -> LanguageModel:
        model.used_at = time.monotonic()
        if model.lm is None:
            model.lm = model.reload()
        return model.lm

    def _engine_of(self, model: ServedModel) -> _Running:
        lm = self._loaded(model)
        if model not in self._running:
            engine = Engine(
                lm.model,
                lm.tokenizer,
                n_slots=self._n_slots,
                budget_bytes=self._cache_bytes,
                n_threads=1 if model.n_parameters < SMALL_MODEL else None,
            )
            self._running[model] = _Running(engine=engine)
        return self._running[model]

    def _unload_idle(self) -> None:
        for model in (*self.models, *self.models.replaced):
            if model.keep_s is None or model.lm is None:
                continue
            running = self._running.get(model)
            if running is not None and running.engine.has_work:
                model.used_at = time.monotonic()
            elif time.monotonic() - model.used_at >= model.keep_s:
                if running is not None:
                    running.engine.close()
                    del self._running[model]
                model.lm = None

    def _fail_all(self, reason: str) -> None:
        for running in self._running.values():
            for job in {id(job): job for job, _ in running.rows.values()}.values():
                self._drop(job)
                self._outbox.append(partial(job.deliver, _unavailable(reason)))

    def _end(self) -> None:
        """Fail what was running or waiting when the thread ended, so that no client waits for it."""
        reason = "the server's worker has ended"
        with contextlib.suppress(queue.Empty):
            while True:
                self._commands.get_nowait()()
        self._fail_all(reason)
        for future, _ in self._calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(_unavailable(reason))
        self._send()

    def _send(self) -> None:
        """Hand everything in the outbox to the event loop at once."""
        if not self._outbox:
            return
        items, self._outbox = self._outbox, []
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has been closed: no client waits any more
            self._loop.call_soon_threadsafe(_deliver_all, items)


def _unavailable(reason: str) -> RequestError:
    return RequestError(f"{reason}; try again later.", HTTPStatus.SERVICE_UNAVAILABLE, code="unavailable")


def _deliver_all(items: list[Callable[[], Any]]) -> None:
    for item in items:
        item()
