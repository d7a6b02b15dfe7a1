"""How a judge is asked over a network: how long we wait, how often we come back, how much we listen to.

What each fault leads to. "Again" is asked again after 1, 2, 4, ... seconds until the attempts are used up, which is
a SilentJudgeError. "Error" is a ServiceError at once. "Doubt" is a SilentJudgeError at once, but again if this judge
has replied before: then the address is right and it may only be restarting.

| fault | outcome |
|---|---|
| nobody there, wrong port, unknown host, a certificate not to be trusted | doubt |
| bytes of no protocol | doubt |
| model not found (404), bad key (401), bad request (400), no quota left (429) | error, with the server's words |
| 408, 425, 429, any 5xx | again, after `Retry-After` if given; error when that is beyond `longest_wait_s` |
| slow first words | waited for up to `first_s`, then again |
| a pause inside the reply | waited for up to `between_s`, then again |
| a reply that does not end | again after `whole_s` |
| a connection reset at any time | again; what had come is dropped |
| the stream ends without its mark (`done`, `finish_reason`) | again; what had come is dropped |
| an error's body in the middle of the stream | again; what had come is dropped |
| the reply is cut off by a length limit, or filtered | error: it would be cut off again |
| the request does not fit the context (Ollama) | error: the judge has not seen all of it |
| a reply of more than `max_reply_bytes` | error: it is cut off there |
| any other reply: chatty, no number, NaN, negative, empty, 100 KB | returned whole, whatever it is worth |
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, fields
from http import HTTPStatus

from scratchlm.assets.http_requests import TRY_AGAIN_STATUS
from scratchlm.core.errors import ConfigError, ServiceError

logger = logging.getLogger(__name__)

Pieces = Generator[str, None, None]  # a reply as it comes


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgePatience:
    """How long to wait for a judge, and how often to come back. Raises: ConfigError for what is not above 0."""

    connect_s: float = 10.0  # seconds for the connection
    first_s: float = 300.0  # until the first words: a large model is first read from disk
    between_s: float = 60.0  # until the next words
    whole_s: float = 900.0  # for all of one reply
    attempts: int = 5  # how often a question is asked, the first time included, before it counts as failed
    backoff_s: float = 1.0  # before the second attempt; doubles each time
    longest_wait_s: float = 120.0  # a server that asks for more is not waited for
    max_reply_bytes: int = 1 << 20  # a longer reply is an error; a judgement is some hundred bytes

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not value > 0:
                raise ConfigError(
                    f"{setting.name} must be above 0, got {value}; leave it out for its default."
                )

    @property
    def longest_pause_s(self) -> float:
        """What a client may wait for bytes: it does not know whether the first ones came."""
        return max(self.first_s, self.between_s)


DEFAULT_JUDGE_PATIENCE = JudgePatience()


class PassingTroubleError(ServiceError):
    """This attempt failed, the next may not."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s  # what the server asked for


class SilentJudgeError(ServiceError):
    """All attempts are used up: nobody is there, or nothing whole comes."""


class DoubtfulAddressError(ServiceError):
    """Nobody is there, or somebody else: no use to ask again, unless it went well before."""


@dataclass(kw_only=True)
class PatientAsker:
    """Asks one judge until there is a whole reply; may be used by several threads.

    `who` names the judge and its address in messages, `options` are what else decides a reply. Bounds: one `ask`
    takes at most `attempts` x (`connect_s` + `whole_s`) and the waits between.
    """

    who: str
    options: Mapping[str, object] = field(default_factory=dict)
    patience: JudgePatience = DEFAULT_JUDGE_PATIENCE
    has_replied: bool = field(default=False, init=False)  # so the address is right

    @property
    def identity(self) -> str:
        """Name, address and options."""
        return " ".join([self.who, *(f"{name}={value}" for name, value in self.options.items())])

    def ask(self, open_reply: Callable[[], Pieces]) -> str:
        """The whole reply. `open_reply` sends the request and yields the reply's pieces, or raises ServiceError.

        Raises: ServiceError as the table of this module says.
        """
        n_attempts = 0
        while True:
            n_attempts += 1
            try:
                reply = self._read(open_reply)
            except (PassingTroubleError, DoubtfulAddressError) as trouble:
                is_hopeless = isinstance(trouble, DoubtfulAddressError) and not self.has_replied
                if is_hopeless or n_attempts >= self.patience.attempts:
                    tried = "" if is_hopeless else f" Asked {n_attempts} times."
                    raise SilentJudgeError(f"{trouble}{tried}") from trouble
                wait_s = self._wait_s(trouble, n_attempts)
                logger.info("%s Asked again in %.1f s.", trouble, wait_s)
                time.sleep(wait_s)
            else:
                self.has_replied = True
                return reply

    def _wait_s(self, trouble: ServiceError, n_attempts: int) -> float:
        asked_s = trouble.wait_s if isinstance(trouble, PassingTroubleError) else None
        if asked_s is not None and asked_s > self.patience.longest_wait_s:
            raise ServiceError(
                f"{trouble} It asks to wait {asked_s:.0f} s, we wait at most {self.patience.longest_wait_s:.0f}."
            ) from trouble
        backoff_s = min(self.patience.backoff_s * 2 ** (n_attempts - 1), self.patience.longest_wait_s)
        return backoff_s if asked_s is None else asked_s

    def _read(self, open_reply: Callable[[], Pieces]) -> str:
        """One attempt. A thread listens, so that we may stop waiting at any time; it hangs up as soon as it can."""
        arrivals: queue.SimpleQueue[str | ServiceError | None] = queue.SimpleQueue()
        is_abandoned = threading.Event()
        args = (open_reply, arrivals, is_abandoned)
        threading.Thread(target=_listen, args=args, name=f"asking {self.who}", daemon=True).start()
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
                    raise PassingTroubleError(self._too_slow(n_bytes, left_s < pause_s)) from cause
                if arrived is None:
                    return "".join(pieces)
                if isinstance(arrived, ServiceError):
                    raise arrived
                if arrived:
                    pieces.append(arrived)
                n_bytes += len(arrived.encode("utf-8", errors="surrogatepass"))
                if n_bytes > limits.max_reply_bytes:
                    raise ServiceError(
                        f"{self.who} should reply with at most {limits.max_reply_bytes:,} bytes, found more; "
                        "it was cut off: use another judge, or raise max_reply_bytes."
                    )
        finally:
            is_abandoned.set()

    def _too_slow(self, n_bytes: int, is_whole: bool) -> str:
        limits = self.patience
        if is_whole:
            name, expected = "whole_s", f"end its reply within {limits.whole_s:g} s"
        elif n_bytes:
            name, expected = "between_s", f"go on within {limits.between_s:g} s"
        else:
            name, expected = "first_s", f"begin to reply within {limits.first_s:g} s"
        return f"{self.who} should {expected}, found {n_bytes:,} bytes by then; raise {name}, or use a faster judge."


def _listen(
    open_reply: Callable[[], Pieces],
    arrivals: queue.SimpleQueue[str | ServiceError | None],
    is_abandoned: threading.Event,
) -> None:
    """Put each piece of the reply into the queue, and None at its end."""
    outcome: ServiceError | None = ServiceError(
        "the thread that listens to a judge ended by a bug; see its trace."
    )
    try:
        with contextlib.closing(open_reply()) as pieces:
            for piece in pieces:
                arrivals.put(piece)
                if is_abandoned.is_set():
                    return
        outcome = None
    except ServiceError as trouble:
        outcome = trouble
    finally:
        arrivals.put(outcome)


def status_trouble(who: str, status: int, said: str, *, wait_s: float | None, advice: str) -> ServiceError:
    """The error of an answer that is none: one that may pass, or one that will not."""
    message = f"{who} should answer, found {status}: {said.strip():.300}; {advice}."
    if status in TRY_AGAIN_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return PassingTroubleError(message, wait_s=wait_s)
    return ServiceError(message)


def connection_trouble(who: str, cause: BaseException, *, advice: str) -> ServiceError:
    """The error of a connection that did not come about, or broke."""
    kind = type(cause).__name__  # httpx's, whichever of its editions a client uses
    found = f"{str(cause) or kind} ({kind})"
    if kind in ("ConnectError", "ConnectTimeout"):
        return DoubtfulAddressError(f"{who} should be reachable, found: {found}; {advice}.")
    return PassingTroubleError(
        f"{who} should reply, the connection failed: {found}; look at its log, or ask again."
    )


def error_inside(who: str, said: str) -> PassingTroubleError:
    """The error of a stream that begins well and then tells of one."""
    return PassingTroubleError(f"{who} should end its reply, found the error {said:.300}; look at its log.")


def no_protocol(who: str, said: str, protocol: str) -> DoubtfulAddressError:
    """The error of bytes that are no reply at all."""
    return DoubtfulAddressError(
        f"{who} should stream {protocol}, found {said:.200}; is that its address? Give another with --base-url."
    )


def cut_short(who: str) -> PassingTroubleError:
    """The error of a stream that ends before its mark."""
    return PassingTroubleError(
        f"{who} should mark the end of its reply, the stream stopped before; look at its log, or ask again."
    )


def not_whole(who: str, reason: str) -> ServiceError:
    """The error of a reply that the judge itself has ended early."""
    return ServiceError(
        f"{who} should end its reply by itself, found it ended by {reason!r}; "
        "give it a larger context, or use another judge."
    )
