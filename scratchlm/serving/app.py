"""The web application: every endpoint, the errors in each protocol's form, and the OpenAPI document."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scratchlm import __version__
from scratchlm.core.errors import ScratchLMError
from scratchlm.serving.json_body import validation_message
from scratchlm.serving.models import ModelList, ServedModel
from scratchlm.serving.ollama_api import ollama_router
from scratchlm.serving.openai_api import openai_router
from scratchlm.serving.openai_responses import responses_router
from scratchlm.serving.own_api import own_router
from scratchlm.serving.page_api import page_router_api
from scratchlm.serving.pages import page_router
from scratchlm.serving.request_errors import ClientGoneError, RequestError, error_body
from scratchlm.serving.runs_api import runs_router
from scratchlm.serving.security import Guard
from scratchlm.serving.service import RunControl, RunsReader, Service
from scratchlm.serving.settings import ServeSettings

CLIENT_GONE = 499  # nginx's number for it; this answer is not read
DESCRIPTION = "Language models behind OpenAI's and Ollama's protocols, and endpoints to look inside them."


def create_app(
    models: Sequence[ServedModel],
    settings: ServeSettings | None = None,
    *,
    runs: RunsReader | None = None,
    control: RunControl | None = None,
    new_models: Callable[[], Sequence[ServedModel]] | None = None,
) -> FastAPI:
    """Build the application; its models run while its lifespan does. With `control`, its page starts and stops runs.

    `new_models` returns models that have appeared since its last call; it is asked when a client lists the models.
    `app.state.service` is what the endpoints share.
    """
    settings = ServeSettings() if settings is None else settings
    service = Service(ModelList(models), settings, runs, control, new_models)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start(asyncio.get_running_loop())
        try:
            await service.worker.warm_up()
            yield
        except ScratchLMError as error:
            app.state.startup_error = error  # for the caller of the server
            raise
        finally:
            service.stop()

    app = FastAPI(
        title="scratchlm",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.startup_error = None
    for router in (openai_router, responses_router, ollama_router, own_router, page_router_api, runs_router):
        app.include_router(router(service))
    app.include_router(page_router())
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ClientGoneError, _on_gone)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(_Measured, service=service)
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


class _Measured:
    """Count every request by its route and status."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s, status = time.perf_counter(), CLIENT_GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.record(route, status, time.perf_counter() - started_s)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if not isinstance(error, RequestError):  # the router's own: an unknown address, or another method
        where = f"{request.method} {request.url.path[:100]}"
        message = f"{where}: {error.detail}; /openapi.json lists every address."
        error = RequestError(message, error.status_code, headers=error.headers)
    body = error_body(request.url.path, error)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, name = validation_message(error)
    return await _on_http_error(request, RequestError(message, param=name))


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; invalid bodies are answered with 400, not with FastAPI's 422, and errors are JSON."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                for status, answer in operation["responses"].items():
                    if int(status) >= HTTPStatus.BAD_REQUEST:  # JSON, even if the answer is a text or page
                        answer["content"] = {"application/json": next(iter(answer["content"].values()))}
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema
