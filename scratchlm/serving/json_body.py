"""Strict JSON in requests: every body that Python's parser would take too literally is refused with a reason."""

import json
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from scratchlm.serving.request_errors import ClientGoneError, RequestError, as_request_error

MAX_DEPTH = 64
MAX_DIGITS = 20  # of a whole number
MAX_SHOWN = 60  # characters of a wrong value in a message
_TYPE = re.compile(r"str|int|float|bool|(list|dict|literal)\[.*|(function|lax|constrained)-.*|[A-Z]\w*")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Strict(BaseModel):
    """Base of all request bodies: unknown fields are refused, and a text is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def parse_body(body: bytes) -> Any:
    """Parse a request's body.

    Raises: RequestError (400) for what is not JSON in UTF-8, NaN and infinite numbers, whole numbers of more than 20
        digits, half a surrogate pair, a field given twice, and more than 64 levels.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as cause:
        raise _wrong(
            f"the body must be UTF-8, got byte 0x{body[cause.start]:02x} at {cause.start}"
        ) from cause
    except json.JSONDecodeError as cause:
        raise _wrong(f"the body is not JSON: {cause.msg} at character {cause.pos}") from cause
    except RecursionError as cause:
        raise _wrong(f"the body has more than {MAX_DEPTH} levels") from cause
    if _depth(text) > MAX_DEPTH:
        raise _wrong(f"the body has more than {MAX_DEPTH} levels")
    if _ESCAPED_SURROGATE.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as cause:
            raise _wrong("the body has a lone surrogate, which is not a character") from cause
    return value


class StrictJSONRoute(APIRoute):
    """A route whose body is parsed by `parse_body`, and whose failures are answers in the protocol's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with a request whose `json` is strict."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            try:
                if request.method == "POST":
                    check_content_type(request.headers)
                return await handler(_StrictRequest(request.scope, request.receive))
            except (HTTPException, RequestValidationError, ClientGoneError):
                raise
            except Exception as error:
                raise as_request_error(error) from error

        return strict


def check_content_type(headers: Headers) -> None:
    """Check that the body says it is JSON, which no web page can send to another origin without asking (CORS).

    Raises: RequestError (415).
    """
    kind, _, parameters = headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() != "application/json" or charset not in ("", "utf-8", "utf8"):
        message = "the body must be JSON in UTF-8; send `Content-Type: application/json`."
        raise RequestError(message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    if headers.get("content-encoding", "identity") != "identity":
        message = "the body must not be compressed; leave Content-Encoding out."
        raise RequestError(message, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_body(await self.body())


def validation_message(error: RequestValidationError) -> tuple[str, str | None]:
    """What is wrong with a body's first wrong field, and the field's name.

    Of a field with several forms, such as a text or a list, that one counts which fits furthest and has its type.
    """
    errors = error.errors()
    begin = _fields(errors[0])[:1]
    own = (one for one in errors if _fields(one)[:1] == begin)
    first = max(own, key=lambda one: (len(_fields(one)), not one["type"].endswith("_type")))
    name = ".".join(_fields(first))
    if first["type"] == "extra_forbidden":
        message = (
            f"this request has no field {name[:MAX_SHOWN]!r}; leave it out (/openapi.json lists all fields)."
        )
    elif first["type"] == "missing":
        message = f"{name or 'a JSON body'} is missing; add it."
    else:
        what = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        message = f"{name or 'the body'}: {what[:1].lower()}{what[1:]}, got {_shown(first.get('input'))}; change it."
    return message, name or None


def _fields(error: Mapping[str, Any]) -> list[str]:
    """The place of an error, without the names of types that pydantic puts between fields and positions."""
    place = [str(part) for part in error["loc"] if part != "body"]
    is_field = error["type"] in ("extra_forbidden", "missing")  # then the last part is a field's name
    return [
        part
        for i, part in enumerate(place)
        if i == 0 or (is_field and i == len(place) - 1) or not _TYPE.fullmatch(part)
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _wrong(message: str) -> RequestError:
    return RequestError(f"{message}; send a JSON object.")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _wrong(f"numbers must be finite, got {text[:MAX_SHOWN]}")
    return value


def _short(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise _wrong(f"whole numbers must have at most {MAX_DIGITS} digits, got {len(text)}")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _wrong(f"the field {twice[:MAX_SHOWN]!r} is given twice")
    return value


def _depth(text: str) -> int:
    """Levels of objects and arrays; brackets inside texts do not count."""
    deepest = depth = 0
    for bracket in _BRACKETS.finditer(text):
        character = bracket[0][0]
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        deepest = max(deepest, depth)
    return deepest


_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
