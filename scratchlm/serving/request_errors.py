"""Errors as answers: each protocol's own form, and the status of each of our errors."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from scratchlm.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingDependencyError,
    OutOfMemoryError,
    ScratchLMError,
    TokenizerError,
)
from scratchlm.core.memory import is_out_of_memory

logger = logging.getLogger(__name__)

TYPES = {  # OpenAI's names for what is wrong
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
    HTTPStatus.NOT_IMPLEMENTED: "server_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_error",
}


class RequestError(HTTPException):
    """A request that is answered with an error; `code` and `param` are OpenAI's, for programs."""

    def __init__(
        self,
        message: str,
        status: int = HTTPStatus.BAD_REQUEST,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers=headers)
        self.code = code
        self.param = param


class ClientGoneError(Exception):
    """The client has closed the connection, so the answer would not be read."""


def error_body(path: str, error: RequestError) -> dict[str, Any]:
    """The body of an error: OpenAI's form below /v1, elsewhere Ollama's."""
    if not path.startswith("/v1"):
        return {"error": error.detail}
    kind = TYPES.get(HTTPStatus(error.status_code), "invalid_request_error")
    return {"error": {"message": error.detail, "type": kind, "param": error.param, "code": error.code}}


def as_request_error(error: BaseException) -> RequestError:
    """The answer to an error that a request caused; what is not the client's fault is logged, and not shown."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, (ConfigError, DataError, TokenizerError)):
        return RequestError(str(error))
    if isinstance(error, MissingDependencyError):
        return RequestError(str(error), HTTPStatus.NOT_IMPLEMENTED, code="not_installed")
    if isinstance(error, OutOfMemoryError) or is_out_of_memory(error):
        logger.error("a request ran out of memory: %s", type(error).__name__)
        message = "the server ran out of memory for this request; ask for fewer or shorter texts."
        return RequestError(message, HTTPStatus.INTERNAL_SERVER_ERROR, code="out_of_memory")
    if isinstance(error, CheckpointError) and "chat template" in str(error):
        return RequestError(str(error), HTTPStatus.INTERNAL_SERVER_ERROR, code="chat_template")
    known = isinstance(error, ScratchLMError)
    logger.error("a request failed", exc_info=None if known else error)
    if known:
        logger.error("%s", error)
    return RequestError(
        f"the request failed in the server ({type(error).__name__}); the server's log has the details.",
        HTTPStatus.INTERNAL_SERVER_ERROR,
        code="internal_error",
    )
