"""Access control for every endpoint: which clients are allowed, how much they may send, and what browsers may do."""

import hmac
import json
from http import HTTPStatus
from typing import Any

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scratchlm.serving.request_errors import RequestError, error_body
from scratchlm.serving.settings import LOCAL_NAMES, ServeSettings, is_loopback

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (  # of every answer
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
API_PATHS = ("/v1/", "/api/", "/metrics")  # need the token; the page's own files and /health do not
MAX_TARGET = 2048  # bytes of path and query
MAX_HEADERS = 100
LINGER_S = 1.0  # time to go on reading after a body was refused
CLOSE = {"connection": "close"}
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type",
}


class Guard:
    """ASGI middleware that checks Host, Origin, token, lengths and times, before any endpoint runs.

    Nothing of a request is logged. Every answer gets the security headers.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on with a limited body."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = _Exchange(scope, receive, send, self.settings)
        try:
            origin = self._check(scope, exchange.headers)
            exchange.allow_origin = origin
            if scope["method"] == "OPTIONS" and origin is not None:
                await exchange.answer(HTTPStatus.NO_CONTENT, None, PREFLIGHT)
                return
            await self.app(scope, exchange.receive, exchange.send)
        except RequestError as error:
            if exchange.is_started:
                raise
            headers = {**CLOSE, **(error.headers or {})}
            await exchange.answer(error.status_code, error_body(scope["path"], error), headers)

    def _check(self, scope: Scope, headers: dict[bytes, list[bytes]]) -> str | None:
        """Check everything but the body; returns the foreign origin that may read the answer, if it is one."""
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET:
            raise RequestError(f"the address must have at most {MAX_TARGET} bytes; shorten it.", 414)
        if sum(map(len, headers.values())) > MAX_HEADERS:
            raise RequestError(f"a request may have at most {MAX_HEADERS} headers; leave some out.", 431)
        host = self._check_host(headers.get(b"host", []))
        origin = self._check_origin(host, headers)
        is_preflight = scope["method"] == "OPTIONS" and origin is not None
        if self.settings.token and scope["path"].startswith(API_PATHS) and not is_preflight:
            self._check_token(headers.get(b"authorization", []))
        if int(headers.get(b"content-length", [b"0"])[0]) > self.settings.max_body_bytes:
            raise _too_long(self.settings.max_body_bytes)
        return origin

    def _check_host(self, values: list[bytes]) -> str:
        host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:
            name, port = host, ""
        is_known = name.removeprefix("[").removesuffix("]") in self.settings.host_names
        if (
            not is_known
            or (port and not (port.isascii() and port.isdigit()))
            or ("[" in name) != ("]" in name)
        ):
            message = (
                "the Host header must name this server; use its address, or start it with --allow-hosts NAME."
            )
            raise RequestError(message, 403, code="host_not_allowed")
        return host

    def _check_origin(self, host: str, headers: dict[bytes, list[bytes]]) -> str | None:
        """Refuse requests of other web pages; a page of this server has the same host and port as the request."""
        values = headers.get(b"origin", [])
        if not values:
            if headers.get(b"sec-fetch-site", [b"none"]) not in ([b"none"], [b"same-origin"]):
                if headers.get(b"sec-fetch-mode") == [b"navigate"]:
                    return None  # a link to this page
                raise _foreign_origin()
            return None
        origin = values[0].decode("latin-1").lower() if len(values) == 1 else "null"
        if origin in (f"http://{host}", f"https://{host}"):
            return None
        if origin in [allowed.lower().rstrip("/") for allowed in self.settings.allow_origins]:
            return origin
        raise _foreign_origin()

    def _check_token(self, values: list[bytes]) -> None:
        given = values[0] if len(values) == 1 else b""
        scheme, _, token = given.partition(b" ")
        is_right = hmac.compare_digest(token.strip(), self.settings.token.encode())
        if scheme.lower() != b"bearer" or not is_right:
            message = "this server needs its token; send it as `Authorization: Bearer TOKEN`."
            raise RequestError(message, 401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def is_from_this_machine(request: Request, settings: ServeSettings) -> bool:
    """Whether a request comes from this machine, under this machine's own address and through no proxy."""
    client, headers = request.client, request.headers
    return (
        is_loopback(settings.host)
        and client is not None
        and is_loopback(client.host)
        and request.url.hostname in LOCAL_NAMES
        and not any(name in headers for name in ("forwarded", "via", "x-forwarded-for", "x-forwarded-host"))
    )


def check_own_page(request: Request, settings: ServeSettings) -> None:
    """Check that the page itself asks, in a browser on this machine; browsers send Origin with every POST.

    Raises: RequestError (403).
    """
    is_own = request.headers.get("origin", "").lower() == f"http://{request.headers['host'].lower()}"
    if not is_own or not is_from_this_machine(request, settings):
        message = (
            "only the page can start and stop runs, opened on the server's own machine at its own address; "
            "elsewhere use `scratchlm run`."
        )
        raise RequestError(message, 403, code="only_from_this_machine")


class _Exchange:
    """One request and its answer: limits on the way in, headers on the way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ServeSettings) -> None:
        self.headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            self.headers.setdefault(name, []).append(value)
        self.allow_origin: str | None = None
        self.is_started = False
        self._receive, self._send, self._settings = receive, send, settings
        self._n_bytes = 0
        self._is_whole = False
        self._is_refused = False  # in the middle of its body
        self._body_until = anyio.current_time() + settings.body_time_s

    async def receive(self) -> Message:
        """Pass on the body; one that is too long or too slow is an error, whatever its headers say."""
        if self._is_whole:
            return await self._receive()  # waits for the end of the connection
        with anyio.move_on_at(self._body_until) as limit:
            message = await self._receive()
        if limit.cancelled_caught:
            self._is_refused = True
            seconds = self._settings.body_time_s
            raise RequestError(
                f"the body did not arrive within {seconds:g} s; send it at once.", 408, headers=CLOSE
            )
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._settings.max_body_bytes:
            self._is_refused = True
            raise _too_long(self._settings.max_body_bytes)
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass on the answer with the security headers; a client that does not read it is disconnected."""
        if message["type"] == "http.response.start":
            self.is_started = True
            present = {name for name, _ in message["headers"]}
            added = [(name, value) for name, value in HEADERS if name not in present]
            if self.allow_origin is not None:
                added += [(b"access-control-allow-origin", self.allow_origin.encode()), (b"vary", b"Origin")]
            message = {**message, "headers": [*message["headers"], *added]}
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        lingers = is_last and self._is_refused
        with anyio.fail_after(self._settings.stall_time_s):
            await self._send({**message, "more_body": True} if lingers else message)
        if lingers:
            await self._linger()
            await self._send({"type": "http.response.body"})

    async def _linger(self) -> None:
        """Read on for a moment: closing while data arrives would reset the connection before the answer is read."""
        with anyio.move_on_after(LINGER_S):
            message: Message = {"more_body": True}
            while message.get("more_body", False):
                message = await self._receive()

    async def answer(self, status: int, value: Any, headers: dict[str, str]) -> None:
        """Send a whole answer with a JSON body, or none."""
        body = b"" if value is None else json.dumps(value).encode()
        kind = [] if value is None else [(b"content-type", b"application/json")]
        named = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
        length = [] if status == HTTPStatus.NO_CONTENT else [(b"content-length", str(len(body)).encode())]
        await self.send(
            {"type": "http.response.start", "status": status, "headers": [*kind, *length, *named]}
        )
        await self.send({"type": "http.response.body", "body": body})


def _foreign_origin() -> RequestError:
    message = "web pages of other origins may not use this server; start it with --allow-origins ORIGIN to allow one."
    return RequestError(message, 403, code="origin_not_allowed")


def _too_long(max_bytes: int) -> RequestError:
    return RequestError(
        f"the body must have at most {max_bytes} bytes; send less at once.", 413, headers=CLOSE
    )
