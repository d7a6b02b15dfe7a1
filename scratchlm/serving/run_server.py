"""Run the application on a socket: time limits for connections, and an orderly end after a signal."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from scratchlm.core.errors import ServiceError
from scratchlm.serving.service import Service
from scratchlm.serving.settings import ServeSettings

MAX_CONNECTIONS = 1000
MAX_HEADER_BYTES = 32 << 10
KEEP_ALIVE_S = 15
BACKLOG = 512


def open_socket(settings: ServeSettings) -> socket.socket:
    """Bind the address, so that it is known before the server starts.

    Raises: ServiceError when the address is in use or does not exist.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host,
            settings.port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_PASSIVE,
        )[0]
        # With the protocol TCP given, asyncio sends at once (TCP_NODELAY).
        found = socket.socket(family, kind, protocol)
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(found)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            on_failure.pop_all()
    except OSError as cause:
        raise ServiceError(
            f"the server cannot listen on {settings.host} port {settings.port} ({cause.strerror or cause}); choose "
            "another --port, or 0 for a free one."
        ) from cause
    return found


def address_of(bound: socket.socket) -> str:
    """The address of the page."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    app: FastAPI, bound: socket.socket, settings: ServeSettings, *, on_start: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; then new connections are refused, and running requests may finish.

    The signal is raised again at the end, for the caller's handler.
    Raises: ConfigError when the cache of a model does not fit its memory.
    """
    bound.listen(BACKLOG)
    try:
        DrainingServer(configured(app, settings), app.state.service, on_start).run(sockets=[bound])
    except SystemExit:  # uvicorn's, whose own report is a traceback
        if app.state.startup_error is not None:
            raise app.state.startup_error from None
        raise


def configured(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """uvicorn's settings: HTTP/1.1 only, limited, without logs of requests."""
    return uvicorn.Config(
        app,
        http=_protocol(settings.header_time_s),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=round(settings.drain_s) + 5,  # the worker ends what takes longer
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


class DrainingServer(uvicorn.Server):
    """uvicorn's server, whose worker learns of a signal."""

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the orderly end; a second SIGINT ends at once."""
        self._service.worker.drain(self._service.settings.drain_s)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then report it."""
        await super().startup(sockets)
        self._on_start()


def _protocol(header_time_s: float) -> type[asyncio.Protocol]:
    """uvicorn's HTTP/1.1 protocol that closes a connection whose headers do not arrive in time."""

    class TimedProtocol(H11Protocol):
        """Between requests, uvicorn's keep-alive limit applies."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            is_new = self.cycle is None or self.cycle.response_complete
            if is_new and self._waiting is None:
                self._wait()
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._done()

        def connection_lost(self, exc: Exception | None) -> None:
            self._done()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._waiting = self.loop.call_later(header_time_s, self._give_up)

        def _done(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            self.transport.abort()

    return TimedProtocol
