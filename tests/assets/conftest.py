"""A web server on this machine that misbehaves on command."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each path with the next of its prepared answers; the last one stays."""

    server: FaultyServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        answers = self.server.routes.get(self.path, [body(b"", status=404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


class FaultyServer(ThreadingHTTPServer):
    """Holds the prepared answers and remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [headers.get("Range") for asked, headers in self.requests if asked == path]

    def handle_error(self, *args: object) -> None:
        """A client that leaves early is part of the tests."""


def body(data: bytes, *, status: int = 200, **headers: str) -> Answer:
    """The whole body with its length."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def ranged(data: bytes, *, etag: str | None = None, shift: int = 0) -> Answer:
    """A good server: a part when asked for one, unless If-Range names another ETag; `shift` makes it lie."""

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range")
        is_same = handler.headers.get("If-Range") in (None, etag)
        extra = {} if etag is None else {"ETag": etag}
        if asked is None or not is_same:
            return body(data, **extra)(handler)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            return body(b"", status=416, Content_Range=f"bytes */{len(data)}")(handler)
        start += shift
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return body(data[start:], status=206, Content_Range=content_range, **extra)(handler)

    return answer


def cut(data: bytes, n_sent: int, *, reset: bool = False, **headers: str) -> Answer:
    """Promise the whole body, send a part, and go: politely (FIN) or not (RST)."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:n_sent])
        handler.wfile.flush()
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        handler.close_connection = True

    return answer


def stall(data: bytes, n_sent: int) -> Answer:
    """Send a part, then nothing, without hanging up."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:n_sent])
        handler.wfile.flush()
        handler.server.released.wait(10)

    return answer


def redirect(location: str) -> Answer:
    return body(b"", status=302, Location=location)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """The server, running; no proxy of this machine stands before it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FaultyServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def answers() -> ModuleType:
    """The kinds of answers: the functions of this file."""
    return sys.modules[__name__]
