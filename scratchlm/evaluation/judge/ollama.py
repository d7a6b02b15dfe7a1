"""A judge served by Ollama, through Ollama's own Python client."""

import contextlib
import functools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import httpx

from scratchlm.assets.http_requests import retry_after_s
from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ServiceError, optional_import
from scratchlm.evaluation.judge.service import (
    DEFAULT_JUDGE_PATIENCE,
    JudgePatience,
    Pieces,
    ServiceJudge,
    connection_error,
    error_in_stream,
    ollama_address,
    protocol_error,
    reply_cut_off,
    status_error,
    stream_ended_early,
)

# The book's options, which make replies reproducible. num_ctx is in tokens, for request and reply together.
OLLAMA_OPTIONS = {"seed": 123, "temperature": 0, "num_ctx": 2048}
PROBE_TIMEOUT_S = 2.0
# Errors that a client raises for a response of another protocol.
NO_CHAT = (ValueError, TypeError, AttributeError, LookupError, RecursionError)


class OllamaJudge(ServiceJudge):
    """A model under Ollama: `POST /api/chat`, streamed, at temperature 0 with a fixed seed.

    Raises: ConfigError for an invalid address, or num_ctx below 1; MissingDependencyError without the `ollama` package.
    """

    kind = "ollama"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        seed: int = OLLAMA_OPTIONS["seed"],
        num_ctx: int = OLLAMA_OPTIONS["num_ctx"],
        patience: JudgePatience = DEFAULT_JUDGE_PATIENCE,
    ) -> None:
        check_at_least(1, num_ctx=num_ctx)
        options = OLLAMA_OPTIONS | {"seed": seed, "num_ctx": num_ctx}
        super().__init__(model, address=ollama_address(base_url), options=options, patience=patience)
        with optional_import("a judge served by Ollama needs the package ollama", extra="eval"):
            import ollama
        timeout = httpx.Timeout(patience.longest_pause_s, connect=patience.connect_s)
        check = functools.partial(_check_status, who=self._who, model=model)
        self._client: Any = ollama.Client(self.address, timeout=timeout, event_hooks={"response": [check]})
        weakref.finalize(self, self._client.close)  # close connections when the judge is collected
        self._stream_error: type[Exception] = ollama.ResponseError

    def _open_reply(self, messages: Sequence[Mapping[str, str]]) -> Pieces:
        try:
            parts = self._client.chat(self.model, messages, stream=True, options=self.options)
            with contextlib.closing(parts):
                yield from chat_pieces(parts, who=self._who, num_ctx=self.options["num_ctx"])
        except self._stream_error as cause:
            raise error_in_stream(self._who, str(cause)) from cause
        except httpx.HTTPError as cause:
            advice = f"start it with `ollama serve`, fetch the model with `ollama pull {self.model}`"
            raise connection_error(self._who, cause, advice=advice) from cause
        except NO_CHAT as cause:
            raise protocol_error(self._who, f"{type(cause).__name__}: {cause}", "Ollama's chat") from cause


def _check_status(response: httpx.Response, *, who: str, model: str) -> None:
    """Raise for an error status before the client does: its own error lacks headers such as `Retry-After`."""
    if not response.is_error:
        return
    body = response.read().decode("utf-8", errors="replace")
    is_missing = response.status_code == HTTPStatus.NOT_FOUND
    if is_missing and "model" in body:
        advice = f"fetch the model with `ollama pull {model}`"
    elif is_missing:
        advice = "is that Ollama's address? Give another with --base-url"
    else:
        advice = "check Ollama's log"
    wait_s = retry_after_s(response.headers.get("retry-after"))
    raise status_error(who, response.status_code, body, wait_s=wait_s, advice=advice)


def chat_pieces(parts: Iterable[Any], *, who: str, num_ctx: int | None = None) -> Pieces:
    """Yield the text of a streamed chat in parts, up to the part that is marked as done.

    `parts` have Ollama's fields behind `get`: its client's objects, or the parsed JSON.
    Raises: ServiceError when no part is marked as done, when a limit and not the model ended the reply, and
        when the number of tokens read is one to which Ollama truncates a request that does not fit.
    """
    for part in parts:
        message = part.get("message")
        content = "" if message is None else message.get("content")
        if content is not None and not isinstance(content, str):
            raise protocol_error(who, repr(content), "chat messages")
        yield content or ""
        if not part.get("done"):
            continue
        reason, n_prompt = part.get("done_reason"), part.get("prompt_eval_count") or 0
        if num_ctx is not None and _is_truncated(n_prompt, num_ctx):
            raise ServiceError(
                f"the request to {who} did not fit num_ctx={num_ctx} and was truncated to {n_prompt} tokens; raise "
                "--num-ctx, or judge shorter answers."
            )
        if reason not in (None, "", "stop"):
            raise reply_cut_off(who, str(reason))
        return
    raise stream_ended_early(who)


def _is_truncated(n_prompt: int, num_ctx: int) -> bool:
    """Whether this is a length to which Ollama truncates, silently, a request that does not fit.

    Ollama reports only the length after truncation: all of num_ctx in older versions; in newer ones the first
    few tokens and half of the remaining context, for example 16,386 and 16,387 of 32,768, or 2,050 of 4,096.
    A request that fits may have one of these lengths by chance; it is rejected too, since otherwise a
    truncated request could be judged.
    Source: measurements in github.com/ollama/ollama, issues 17427, 3839 and 17889.
    """
    half = num_ctx // 2
    return n_prompt >= num_ctx or half < n_prompt <= half + 4


def ollama_answers(base_url: str | None = None) -> bool:
    """Whether an Ollama server responds at the address; works without the `ollama` package.

    Raises: ConfigError for an invalid address.
    """
    try:
        version = httpx.get(f"{ollama_address(base_url)}/api/version", timeout=PROBE_TIMEOUT_S).json()
    except (httpx.HTTPError, ValueError, RecursionError):
        return False
    return isinstance(version, dict) and isinstance(version.get("version"), str)
