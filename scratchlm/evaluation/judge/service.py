"""Query a judge over a network: the service's address, timeouts and retries.

The table lists the outcome of each fault. "Retry": the request is repeated after 1, 2, 4, ... seconds until
the attempts are used up, and then a JudgeUnreachableError is raised. "Error": a ServiceError is raised at
once. "Unreachable": a JudgeUnreachableError is raised at once, unless this judge has replied before: then the
address is correct, the service may be restarting, and the request is retried.

| fault | outcome |
|---|---|
| connection refused, wrong port, unknown host, untrusted certificate | unreachable |
| bytes that are not the protocol | unreachable |
| model not found (404), bad key (401), bad request (400), no quota left (429) | error, with the server's message |
| 408, 425, 429, any 5xx | retry, after `Retry-After` if given; error when that is beyond `longest_wait_s` |
| nothing for `first_s` | retry |
| a pause of more than `between_s` inside the reply | retry |
| a reply that has not ended after `whole_s` | retry |
| connection reset at any time | retry; the partial reply is dropped |
| the stream ends without its end mark (`done`, `finish_reason`) | retry; the partial reply is dropped |
| an error in the middle of the stream | retry; the partial reply is dropped |
| the reply is truncated by a length limit, or filtered | error: a second attempt would give the same |
| the request does not fit the context (Ollama) | error: the judge did not read all of it |
| a reply of more than `max_reply_bytes` | error |
| any other reply: chatty, no number, NaN, negative, empty, 100 KB | returned whole |
"""

import contextlib
import logging
import os
import queue
import threading
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, fields
from http import HTTPStatus
from typing import Any

from scratchlm.assets.http_requests import TRY_AGAIN_STATUS
from scratchlm.core.errors import ConfigError, ServiceError

logger = logging.getLogger(__name__)

OLLAMA_PORT = 11434
OPENAI_URL = "https://api.openai.com/v1"
DEFAULT_PORTS = {"http": 80, "https": 443}
THIS_MACHINE = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104, a server's "all of my addresses"

Pieces = Generator[str, None, None]  # yields the parts of a streamed reply


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgePatience:
    """Timeouts and retries of a judge's requests. Raises: ConfigError for a value that is not above 0."""

    connect_s: float = 10.0  # seconds to connect
    first_s: float = 300.0  # seconds until the first part: a large model must first be loaded from disk
    between_s: float = 60.0  # seconds between two parts of a reply
    whole_s: float = 900.0  # seconds for a whole reply
    attempts: int = 5  # requests per question, including the first, before it counts as failed
    backoff_s: float = 1.0  # seconds before the second attempt; doubles each time
    longest_wait_s: float = 120.0  # maximum Retry-After in seconds; a longer one is an error
    max_reply_bytes: int = 1 << 20  # a longer reply is an error; a normal reply has some hundred bytes

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not value > 0:
                raise ConfigError(
                    f"{setting.name} must be above 0, got {value}; leave it out for its default."
                )

    @property
    def longest_pause_s(self) -> float:
        """The read timeout for the HTTP client, which has only one for the first and all later parts."""
        return max(self.first_s, self.between_s)


DEFAULT_JUDGE_PATIENCE = JudgePatience()


class TransientJudgeError(ServiceError):
    """An attempt failed, but another one may succeed."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s  # seconds, from Retry-After


class JudgeUnreachableError(ServiceError):
    """No complete reply after all attempts."""


class WrongAddressError(ServiceError):
    """No service at the address, or another kind of service; retried only if the judge has replied before."""


class ServiceJudge(ABC):
    """A model behind a service; a subclass sends one request and yields the parts of the reply.

    A question is sent, with retries, until a complete reply arrives; thread-safe. One `ask` takes at most `attempts` x
    (`connect_s` + `whole_s`) and the waits between.
    """

    kind: str  # first part of the judge's name

    def __init__(
        self, model: str, *, address: str, options: Mapping[str, Any], patience: JudgePatience
    ) -> None:
        self.model = model
        self.address = address
        self.options = options
        self.patience = patience
        self._who = f"{self.name} at {address}"
        self._has_replied = False  # so the address is correct

    @property
    def name(self) -> str:
        """Kind and model, such as `ollama:llama3`."""
        return f"{self.kind}:{self.model}"

    @property
    def identity(self) -> str:
        """Name, address and options."""
        return " ".join([self._who, *(f"{name}={value}" for name, value in self.options.items())])

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the whole reply, without the reasoning of a reasoning model.

        Raises: ServiceError as listed in this module's table.
        """
        n_attempts = 0
        while True:
            n_attempts += 1
            try:
                reply = self._read(messages)
            except (TransientJudgeError, WrongAddressError) as error:
                is_final = isinstance(error, WrongAddressError) and not self._has_replied
                if is_final or n_attempts >= self.patience.attempts:
                    tried = "" if is_final else f" Tried {n_attempts} time{'s' if n_attempts > 1 else ''}."
                    raise JudgeUnreachableError(f"{error}{tried}") from error
                wait_s = self._wait_s(error, n_attempts)
                logger.info("%s Retrying in %.1f s.", error, wait_s)
                time.sleep(wait_s)
            else:
                self._has_replied = True
                return reply

    def _wait_s(self, error: ServiceError, n_attempts: int) -> float:
        limit_s = self.patience.longest_wait_s
        wanted_s = error.wait_s if isinstance(error, TransientJudgeError) else None
        if wanted_s is not None and wanted_s > limit_s:
            raise ServiceError(
                f"{error} The server asks to wait {wanted_s:.0f} s; the limit, longest_wait_s, is {limit_s:.0f} s."
            ) from error
        return min(self.patience.backoff_s * 2 ** (n_attempts - 1), limit_s) if wanted_s is None else wanted_s

    def _read(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Make one attempt. Another thread reads the stream, so that this one can time out at any point."""
        arrivals: queue.SimpleQueue[str | ServiceError | None] = queue.SimpleQueue()
        is_abandoned = threading.Event()
        args = (self._open_reply(messages), arrivals, is_abandoned)
        threading.Thread(target=_read_stream, args=args, name=f"asking {self._who}", daemon=True).start()
        limits = self.patience
        ends_at_s = time.monotonic() + limits.connect_s + limits.whole_s
        pieces: list[str] = []
        n_bytes = 0
        try:
            while True:
                pause_s = limits.between_s if pieces else limits.connect_s + limits.first_s
                left_s = ends_at_s - time.monotonic()
                try:
                    arrived = arrivals.get(timeout=max(0.0, min(pause_s, left_s)))
                except queue.Empty as cause:
                    raise TransientJudgeError(self._too_slow(n_bytes, left_s < pause_s)) from cause
                if arrived is None:
                    return "".join(pieces)
                if isinstance(arrived, ServiceError):
                    raise arrived
                if arrived:
                    pieces.append(arrived)
                n_bytes += len(arrived.encode("utf-8", errors="surrogatepass"))
                if n_bytes > limits.max_reply_bytes:
                    raise ServiceError(
                        f"the reply of {self._who} is longer than {limits.max_reply_bytes:,} bytes; use another judge, "
                        "or raise max_reply_bytes."
                    )
        finally:
            is_abandoned.set()

    def _too_slow(self, n_bytes: int, is_whole: bool) -> str:
        limits = self.patience
        if is_whole:
            name, missing = "whole_s", f"did not finish its reply within {limits.whole_s:g} s"
        elif n_bytes:
            name, missing = "between_s", f"paused for more than {limits.between_s:g} s"
        else:
            name, missing = "first_s", f"did not begin to reply within {limits.first_s:g} s"
        return f"{self._who} {missing} ({n_bytes:,} bytes received); raise {name}, or use a faster judge."

    @abstractmethod
    def _open_reply(self, messages: Sequence[Mapping[str, str]]) -> Pieces: ...


def _read_stream(
    reply: Pieces, arrivals: queue.SimpleQueue[str | ServiceError | None], is_abandoned: threading.Event
) -> None:
    """Put each part of the reply into the queue, and None, or the error, at its end."""
    outcome: ServiceError | None = ServiceError(
        "the thread that reads a judge's reply ended because of a bug; see its traceback."
    )
    try:
        with contextlib.closing(reply) as pieces:
            for piece in pieces:
                arrivals.put(piece)
                if is_abandoned.is_set():
                    return
        outcome = None
    except ServiceError as error:
        outcome = error
    finally:
        arrivals.put(outcome)


def status_error(who: str, status: int, body: str, *, wait_s: float | None, advice: str) -> ServiceError:
    """The error for an HTTP status other than success, temporary or permanent."""
    message = f"{who} answered with HTTP status {status}: {body.strip():.300}; {advice}."
    if status in TRY_AGAIN_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransientJudgeError(message, wait_s=wait_s)
    return ServiceError(message)


def connection_error(who: str, cause: BaseException, *, advice: str) -> ServiceError:
    """The error for a connection that could not be opened, or was lost."""
    kind = type(cause).__name__  # httpx's, in whichever of its forks a client uses
    found = f"{str(cause) or kind} ({kind})"
    if kind in ("ConnectError", "ConnectTimeout"):
        return WrongAddressError(f"{who} cannot be reached: {found}; {advice}.")
    return TransientJudgeError(
        f"the connection to {who} failed: {found}; check its log, or run the command again."
    )


def error_in_stream(who: str, message: str) -> TransientJudgeError:
    """The error for a stream that reports an error after its start."""
    return TransientJudgeError(f"{who} ended its reply with the error {message:.300}; check its log.")


def protocol_error(who: str, found: str, protocol: str) -> WrongAddressError:
    """The error for a response that does not follow the expected protocol."""
    return WrongAddressError(
        f"{who} does not stream {protocol}: {found:.200}; is that its address? Give another with --base-url."
    )


def stream_ended_early(who: str) -> TransientJudgeError:
    """The error for a stream that ends before its end mark."""
    return TransientJudgeError(
        f"the reply of {who} stopped before its end; check its log, or run the command again."
    )


def reply_cut_off(who: str, reason: str) -> ServiceError:
    """The error for a reply that the service itself ended early."""
    return ServiceError(
        f"the reply of {who} was cut off for the reason {reason!r}; give it a larger context, or use another judge."
    )


def ollama_address(base_url: str | None = None) -> str:
    """Normalize Ollama's address to `http://host:port`: the one given, `OLLAMA_HOST`, or port 11434 of this machine.

    Accepts what Ollama accepts: a host, `host:port`, `:port`, an IPv6 address, a URL (whose default port is 80 or
    443), with or without a path, which may end in `/api/chat`.
    Raises: ConfigError for anything else.

    Example:
        >>> ollama_address("0.0.0.0"), ollama_address("judge:8080/"), ollama_address("https://judge.example")
        ('http://127.0.0.1:11434', 'http://judge:8080', 'https://judge.example:443')
    """
    setting = "OLLAMA_HOST" if base_url is None else "--base-url"
    given = (os.environ.get("OLLAMA_HOST", "") if base_url is None else base_url).strip().strip("\"'")
    is_url = "://" in given
    if not is_url:
        is_bare_ipv6 = given.count(":") > 1 and not given.startswith("[")
        given = f"http://[{given}]" if is_bare_ipv6 else f"http://{given}"
    url = _checked_url(given, setting, "a host, host:port or http(s) URL, such as localhost:11434")
    host = THIS_MACHINE.get(url.hostname or "", url.hostname or "")
    port = url.port or (DEFAULT_PORTS[url.scheme] if is_url else OLLAMA_PORT)
    path = url.path.rstrip("/").removesuffix("/api/chat").removesuffix("/api")
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def openai_address(base_url: str | None = None) -> str:
    """The address before `/chat/completions`: the one given, `OPENAI_BASE_URL`, or OpenAI's own.

    Raises: ConfigError for anything but an http(s) URL.

    Example:
        >>> openai_address("http://localhost:8000/v1/")
        'http://localhost:8000/v1'
    """
    setting = "OPENAI_BASE_URL" if base_url is None else "--base-url"
    given = (os.environ.get("OPENAI_BASE_URL", "") if base_url is None else base_url).strip()
    if not given and base_url is None:
        return OPENAI_URL
    url = _checked_url(given, setting, "an http(s) URL, such as http://localhost:8000/v1")
    if not url.hostname:
        raise ConfigError(f"{setting} must name a host, got {given!r}; write http://localhost:8000/v1.")
    return url.geturl().rstrip("/").removesuffix("/chat/completions")


def _checked_url(given: str, setting: str, expected: str) -> urllib.parse.SplitResult:
    """Split the URL. It is shown in messages and files, so it must not contain a password."""
    try:
        url = urllib.parse.urlsplit(given)
        is_right = url.port is None or url.port > 0
    except ValueError:  # a port that is not a number, an open bracket
        is_right = False
    if not is_right or url.scheme not in DEFAULT_PORTS or url.query or url.fragment or " " in given:
        shown = given.rpartition("@")[2]
        raise ConfigError(f"{setting} must be {expected}, got {shown!r}; correct it.")
    if url.username is not None:
        raise ConfigError(
            f"{setting} must be {expected}, got a user name before {url.hostname}; "
            "give the key by OPENAI_API_KEY or OLLAMA_API_KEY."
        )
    return url
