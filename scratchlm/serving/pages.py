"""The files of the web page, read once: an address is looked up in this list and never becomes a path."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

WEB = Path(__file__).with_name("web")
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


def page_router(folder: Path = WEB) -> APIRouter:
    """An address for every file of the folder, and `/` for the page itself."""
    router = APIRouter(include_in_schema=False)
    for file in sorted(folder.rglob("*")):
        if file.suffix in TYPES and file.is_file():
            address = f"/{file.relative_to(folder).as_posix()}"
            body = file.read_bytes()
            for one in (address, "/") if address == f"/{INDEX}" else (address,):
                router.add_api_route(one, _answer(body, TYPES[file.suffix]), methods=["GET", "HEAD"])
    return router


def _answer(body: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'

    async def file(request: Request) -> Response:
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return file
