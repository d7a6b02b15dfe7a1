"""Admit requests: limit how many run and wait, and encode their texts in threads."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from scratchlm.serving.jobs import GenerationJob, RowRequest
from scratchlm.serving.language_model import LanguageModel
from scratchlm.serving.metrics import Metrics
from scratchlm.serving.models import ModelList, ServedModel
from scratchlm.serving.request_errors import ClientGoneError, RequestError
from scratchlm.serving.settings import ServeSettings
from scratchlm.serving.worker import Worker

T = TypeVar("T")
logger = logging.getLogger(__name__)
RETRY_AFTER_S = 2
N_ENCODERS = 2  # threads that encode prompts, render chat templates and look for new models
LOOK_EVERY_S = 2.0  # shortest time between two searches for new models
LOOK_WAIT_S = 5.0  # longest time that a list of models waits for new ones to be loaded


class RunsReader(Protocol):
    """Describes the runs of the runs folder; the command line implements it."""

    def all_runs(self) -> list[dict[str, Any]]:
        """A summary of every run."""

    def one_run(self, name: str) -> dict[str, Any] | None:
        """One run with its curves and samples; None when there is none of that name."""

    def answers(self, name: str) -> dict[str, Any] | None:
        """A run's answers beside the references, with scores; None when there is no such run."""

    def report(self, name: str) -> str | None:
        """A run's report as HTML; None when it has none."""


class RunControl(Protocol):
    """Starts and stops runs; the command line has one. What it raises is a ConfigError."""

    def start(self, *, seed: int | None) -> str:
        """Start a quickstart in a folder of its own; returns the run's name."""

    def stop(self, name: str) -> bool:
        """Ask a running run to stop; False when no run of that name is running."""

    def pending(self) -> list[dict[str, Any]]:
        """What was started and has no folder yet, or failed before it had one; described like a run."""


class Service:
    """What the endpoints share: the models, the worker, and the number of texts that may be in it.

    Everything here is called from the event loop.
    """

    def __init__(
        self,
        models: ModelList,
        settings: ServeSettings,
        runs: RunsReader | None = None,
        control: RunControl | None = None,
        new_models: Callable[[], Sequence[ServedModel]] | None = None,
    ) -> None:
        self.models = models
        self.settings = settings
        self.runs = runs
        self.control = control
        self.metrics = Metrics()
        self.worker = Worker(models, n_slots=settings.n_slots, cache_bytes=settings.cache_bytes)
        self.n_open = 0  # texts that are generated, or wait for it
        self.capacity = settings.n_slots + settings.max_waiting
        self._new_models = new_models
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = time.monotonic()
        self._encoders = ThreadPoolExecutor(max_workers=N_ENCODERS, thread_name_prefix="scratchlm-encode")

    def stop(self) -> None:
        """End the worker and the threads."""
        self.worker.stop()
        self._encoders.shutdown(wait=False, cancel_futures=True)

    async def encode(self, function: Callable[[], T]) -> T:
        """Run what needs no model, such as encoding a text, outside the event loop and the worker."""
        return await asyncio.get_running_loop().run_in_executor(self._encoders, function)

    async def list_models(self) -> ModelList:
        """The models, new ones included; those that take long to load are in a later list."""
        is_due = time.monotonic() - self._looked_at >= LOOK_EVERY_S
        if self._new_models is not None and self._looking is None and is_due:
            self._looking = asyncio.create_task(self._look(self._new_models))
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=LOOK_WAIT_S)
        return self.models

    async def _look(self, new_models: Callable[[], Sequence[ServedModel]]) -> None:
        try:
            for model in await self.encode(new_models):
                self.models.add(model)
        except Exception:
            logger.exception("looking for new models failed")  # the known ones are served on
        finally:
            self._looking, self._looked_at = None, time.monotonic()

    async def generate(
        self,
        model: ServedModel,
        n_rows: int,
        prepare: Callable[[], Sequence[RowRequest]],
        *,
        keep_alive: float | None = None,
    ) -> GenerationJob:
        """Admit a request, encode its prompts and hand them to the engine; the caller closes the job.

        Raises: RequestError (503) when the queue is full, (400) for more rows than it ever holds; what `prepare` and
            the engine's checks raise.
        """
        model.check_generates()
        self._admit(n_rows)
        job = GenerationJob(model, cancel=self.worker.cancel, release=lambda: self._finish(job, n_rows))
        job.keep_alive = keep_alive
        try:
            job.rows = await self.encode(prepare)
            if any(row.config.max_new_tokens for row in job.rows):  # else the prompts are only scored
                job.n_unfinished = len(job.rows)
                self.worker.submit(job)
                await job.accepted
        except BaseException:
            job.close()
            raise
        self.metrics.prompt_tokens[model.id] += job.n_prompt_tokens
        return job

    async def call(
        self, model: ServedModel, function: Callable[[LanguageModel], T], *, keep_alive: float | None = None
    ) -> T:
        """Run a function on a model in the worker, counted as one text.

        Raises: RequestError (503) when the queue is full; what the function raises.
        """
        self._admit(1)
        try:
            return await self.worker.call(model, function, keep_alive=keep_alive)
        finally:
            self.n_open -= 1

    def _admit(self, n_rows: int) -> None:
        if n_rows > self.capacity:
            message = f"a request may ask for at most {self.capacity} texts at once, got {n_rows}; split it."
            raise RequestError(message)
        if self.n_open + n_rows > self.capacity:
            self.metrics.n_rejected += 1
            raise RequestError(
                f"the queue is full ({self.n_open} of {self.capacity} texts); try again in {RETRY_AFTER_S} s.",
                HTTPStatus.SERVICE_UNAVAILABLE,
                code="queue_full",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.n_open += n_rows

    def _finish(self, job: GenerationJob, n_rows: int) -> None:
        self.metrics.generated_tokens[job.model.id] += job.n_tokens
        self.n_open -= n_rows


async def unless_gone(request: Request, work: Any) -> Any:
    """Await `work`, and cancel it when the client closes the connection first.

    Raises: ClientGoneError, so that the endpoint ends.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
