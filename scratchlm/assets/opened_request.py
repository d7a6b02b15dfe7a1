"""One request whose connection has a time limit, resolving the server's name included."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from scratchlm.core.errors import DownloadError

CONNECTED = (
    "connect_tcp.complete",
    "send_request_headers.started",
)  # the latter on a connection that was kept


@contextlib.contextmanager
def opened_answer(
    client: httpx.Client, url: httpx.URL, headers: dict[str, str], *, connect_s: float, answer_s: float
) -> Iterator[httpx.Response]:
    """The answer to a GET request, its body unread; closed at the end of the block.

    Another thread asks: the system's look-up of a name takes no time limit, and a name with many addresses gets
    the limit for each. When time is up, that thread is left behind and ends with its own time-outs.
    Raises: httpx.ConnectTimeout, httpx.ReadTimeout, and what httpx raises.
    """
    has_connected, is_over = threading.Event(), threading.Event()
    found: list[httpx.Response | BaseException] = []
    is_left = threading.Event()

    def trace(event: str, info: dict[str, Any]) -> None:  # noqa: ARG001
        if event.endswith(CONNECTED):
            has_connected.set()

    def ask() -> None:
        try:
            request = client.build_request("GET", url, headers=headers, extensions={"trace": trace})
            response = client.send(request, stream=True)
            found.append(response)
            if is_left.is_set():
                response.close()
        except BaseException as error:  # noqa: BLE001  (raised below, in the thread that waits)
            found.append(error)
        has_connected.set()
        is_over.set()

    threading.Thread(target=ask, daemon=True).start()
    try:
        if not has_connected.wait(connect_s):
            raise httpx.ConnectTimeout(f"no connection within {connect_s:.1f} s")
        if not is_over.wait(answer_s):
            raise httpx.ReadTimeout(f"no answer within {answer_s:g} s")
        answer = found[0]
        if isinstance(answer, BaseException):
            raise answer
        yield answer
    finally:
        is_left.set()
        for answer in found:
            if isinstance(answer, httpx.Response):
                answer.close()


def check_reachable(url: str, *, connect_s: float = 4.0, answer_s: float = 30.0) -> None:
    """Make sure that a server answers, whatever it says, before a library that retries for a minute asks it.

    Raises: DownloadError within connect_s on a machine without network.
    """
    try:
        with (
            httpx.Client(timeout=httpx.Timeout(answer_s, connect=connect_s)) as client,
            opened_answer(client, httpx.URL(url), {}, connect_s=connect_s, answer_s=answer_s),
        ):
            pass
    except httpx.TransportError as cause:
        raise DownloadError(
            f"{url} cannot be reached ({str(cause) or type(cause).__name__}); check the connection (HTTPS_PROXY and "
            "SSL_CERT_FILE are respected)."
        ) from cause
