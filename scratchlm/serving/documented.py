"""The error responses that every endpoint may give, for the OpenAPI document."""

from typing import Any

from scratchlm.serving.openai_schemas import OpenAIError
from scratchlm.serving.schemas import AnswerModel


class PlainError(AnswerModel):
    """An error in Ollama's form, which our own endpoints share."""

    error: str


MEANINGS = {
    400: "the request is wrong; the message says what to change",
    401: "the token is missing or wrong",
    403: "the Host or Origin header is not allowed",
    404: "there is no such model, run or address",
    408: "the body did not arrive in time",
    413: "the body is too long",
    414: "the address is too long",
    415: "the body is not JSON",
    431: "there are too many headers",
    500: "the request failed in the server",
    501: "a package that the request needs is not installed",
    503: "the queue is full, or the server is shutting down",
}


def _errors(model: type[AnswerModel]) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": model, "description": meaning} for status, meaning in MEANINGS.items()
    }
    seconds = {"description": "seconds until another try makes sense", "schema": {"type": "string"}}
    found[503]["headers"] = {"Retry-After": seconds}
    return found


CLIENT_ERRORS = {"openai": _errors(OpenAIError), "plain": _errors(PlainError)}


def streamed(media_type: str) -> dict[int | str, dict[str, Any]]:
    """A successful answer that is streamed in that type when the request asks for it."""
    return {
        200: {"content": {media_type: {"schema": {"type": "string"}}}, "description": "whole, or streamed"}
    }
