"""Endpoints about runs: what the runs folder holds, and on this machine to start a quickstart or stop a run."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import HTMLResponse, JSONResponse, Response

from scratchlm.serving.documented import CLIENT_ERRORS
from scratchlm.serving.json_body import Strict, StrictJSONRoute
from scratchlm.serving.request_errors import RequestError
from scratchlm.serving.schemas import AnswerModel
from scratchlm.serving.security import check_own_page
from scratchlm.serving.service import RunControl, RunsReader, Service

T = TypeVar("T")
# A report holds scripts of its own. In a sandbox without an origin they can reach neither this page nor the API.
REPORT_CSP = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'self'"
)


class StartRequest(Strict):
    """`POST /api/runs`: a quickstart with its own seed, or another."""

    seed: int | None = Field(default=None, ge=0, lt=1 << 31)


class RunName(AnswerModel):
    """The run that was started or asked to stop."""

    name: str


class RunsAnswer(AnswerModel):
    """The runs in the runs folder."""

    runs: list[dict[str, Any]]


class RunAnswers(AnswerModel):
    """A run's answers beside the references."""

    columns: list[dict[str, Any]]
    items: list[dict[str, Any]]
    problems: list[str] = Field(description="files that could not be read")


def runs_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(route_class=StrictJSONRoute, tags=["runs"], responses=CLIENT_ERRORS["plain"])

    @router.get("/api/runs", response_model=RunsAnswer)
    async def list_runs() -> Any:
        """The runs in the runs folder, with their state and main results."""
        found = [] if service.runs is None else await service.encode(service.runs.all_runs)
        if service.control is not None:
            pending = await service.encode(service.control.pending)
            found = [run for run in found if run["name"] not in {one["name"] for one in pending}] + pending
        return JSONResponse({"runs": found})

    async def read(name: str, what: Callable[[RunsReader], T | None], *, kind: str = "run") -> T:
        runs = service.runs
        found = None if runs is None else await service.encode(lambda: what(runs))
        if found is None:
            raise _unknown(name, kind)
        return found

    @router.get("/api/runs/{name}", response_model=dict[str, Any])
    async def show_run(name: str) -> Any:
        """One run with its curves and samples."""
        return JSONResponse(await read(name, lambda runs: runs.one_run(name)))

    @router.get("/api/runs/{name}/answers", response_model=RunAnswers)
    async def answers(name: str) -> Any:
        """The answers that a run saved, and the judgements beside them."""
        return JSONResponse(await read(name, lambda runs: runs.answers(name)))

    @router.get("/api/runs/{name}/report", response_class=HTMLResponse)
    async def report(name: str) -> Response:
        """The report of a run, in a sandbox."""
        text = await read(name, lambda runs: runs.report(name), kind="run with a report")
        return HTMLResponse(text, headers={"content-security-policy": REPORT_CSP})

    def control(request: Request) -> RunControl:
        check_own_page(request, service.settings)
        if service.control is None:
            message = "this server starts and stops no runs; use `scratchlm run`."
            raise RequestError(message, HTTPStatus.FORBIDDEN)
        return service.control

    @router.post("/api/runs", response_model=RunName)
    async def start(body: StartRequest, request: Request) -> Any:
        """Start a quickstart; only from the page on the server's own machine, and one at a time."""
        chosen = control(request)
        return {"name": await service.encode(lambda: chosen.start(seed=body.seed))}

    @router.post("/api/runs/{name}/stop", response_model=RunName)
    async def stop(name: str, request: Request) -> Any:
        """Ask a running run to save and stop; only from the page on the server's own machine."""
        chosen = control(request)
        if not await service.encode(lambda: chosen.stop(name)):
            raise _unknown(name, "running run")
        return {"name": name}

    return router


def _unknown(name: str, what: str) -> RequestError:
    return RequestError(f"there is no {what} {name[:100]!r}; /api/runs lists all.", HTTPStatus.NOT_FOUND)
