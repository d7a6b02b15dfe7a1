"""A judge served through OpenAI's chat protocol, by OpenAI or by another server that implements it."""

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from scratchlm.assets.http_requests import retry_after_s
from scratchlm.core.errors import ConfigError, ServiceError, optional_import
from scratchlm.evaluation.judge.ollama import NO_CHAT, OLLAMA_OPTIONS
from scratchlm.evaluation.judge.service import (
    DEFAULT_JUDGE_PATIENCE,
    OPENAI_URL,
    JudgePatience,
    Pieces,
    ServiceJudge,
    connection_error,
    error_in_stream,
    openai_address,
    protocol_error,
    reply_cut_off,
    status_error,
    stream_ended_early,
)

NO_KEY = "none"  # a local server needs no key, but the client does
NO_QUOTA = "insufficient_quota"  # a 429 error that waiting does not resolve
ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "set the key in OPENAI_API_KEY",
    HTTPStatus.NOT_FOUND: "check the model's name, and whether --base-url ends in /v1",
}


class OpenAIJudge(ServiceJudge):
    """A model behind `POST /chat/completions`, streamed, at temperature 0 with a fixed seed.

    Raises: ConfigError for an invalid address, and for OpenAI's own without a key in OPENAI_API_KEY;
        MissingDependencyError without the `openai` package.
    """

    kind = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        seed: int = OLLAMA_OPTIONS["seed"],
        patience: JudgePatience = DEFAULT_JUDGE_PATIENCE,
    ) -> None:
        options = {"seed": seed, "temperature": 0}
        super().__init__(model, address=openai_address(base_url), options=options, patience=patience)
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key and self.address == OPENAI_URL:
            raise ConfigError(
                "OpenAI needs a key, and OPENAI_API_KEY is not set; set it, or name another server with --base-url."
            )
        with optional_import("a judge behind OpenAI's protocol needs the package openai", extra="eval"):
            import openai
        self._openai: Any = openai
        timeout = self._openai.Timeout(patience.longest_pause_s, connect=patience.connect_s)
        self._client: Any = self._openai.OpenAI(
            base_url=self.address, api_key=key or NO_KEY, timeout=timeout, max_retries=0
        )
        weakref.finalize(self, self._client.close)  # close connections when the judge is collected

    def _open_reply(self, messages: Sequence[Mapping[str, str]]) -> Pieces:
        try:
            with self._client.chat.completions.create(
                model=self.model,
                messages=[dict(message) for message in messages],
                stream=True,
                **self.options,
            ) as chunks:
                yield from self._pieces(chunks)
        except self._openai.APIStatusError as cause:
            raise self._refused(cause) from cause
        except self._openai.APIConnectionError as cause:
            advice = "start it, or give another address with --base-url"
            raise connection_error(self._who, cause.__cause__ or cause, advice=advice) from cause
        except self._openai.APIError as cause:  # in the middle of a stream
            raise error_in_stream(self._who, str(cause)) from cause
        except NO_CHAT as cause:
            raise protocol_error(self._who, f"{type(cause).__name__}: {cause}", "OpenAI's chat") from cause

    def _pieces(self, chunks: Iterable[Any]) -> Pieces:
        """Yield the text of the first choice, up to the chunk with its finish reason."""
        for chunk in chunks:
            for choice in chunk.choices[:1]:  # the chunk with the usage figures has no choice
                content = choice.delta.content
                if content is not None and not isinstance(content, str):
                    raise protocol_error(self._who, repr(content), "OpenAI's chat")
                yield content or ""
                if choice.finish_reason == "stop":
                    return
                if choice.finish_reason is not None:
                    raise reply_cut_off(self._who, str(choice.finish_reason))
        raise stream_ended_early(self._who)

    def _refused(self, cause: Any) -> ServiceError:
        advice = ADVICE.get(cause.status_code, "check its log")
        wait_s = retry_after_s(cause.response.headers.get("retry-after"))
        error = status_error(self._who, cause.status_code, cause.response.text, wait_s=wait_s, advice=advice)
        return ServiceError(str(error)) if cause.code == NO_QUOTA else error
