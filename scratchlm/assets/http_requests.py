"""Send one request with a time limit that includes resolving the server's name, and read Retry-After headers."""

import contextlib
import email.utils
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx

from scratchlm.core.errors import DownloadError

TRY_AGAIN_STATUS = {408, 425, 429, 500, 502, 503, 504}  # RFC 9110 and 6585: the request may succeed later
# The second event is that of a connection that is reused.
CONNECTED = ("connect_tcp.complete", "send_request_headers.started")


@contextlib.contextmanager
def opened_answer(
    client: httpx.Client, url: httpx.URL, headers: dict[str, str], *, connect_s: float, answer_s: float
) -> Iterator[httpx.Response]:
    """Send a GET request and yield the response with its body unread; closed at the end of the block.

    Another thread sends it, because the system's name look-up has no time limit, and for a name with many
    addresses the limit applies to each. After the limit that thread is abandoned; its own timeouts end it.
    Raises: httpx.ConnectTimeout, httpx.ReadTimeout and other errors of httpx.
    """
    has_connected, is_over, is_left = threading.Event(), threading.Event(), threading.Event()
    found: list[httpx.Response | BaseException] = []

    def trace(event: str, info: dict[str, Any]) -> None:  # noqa: ARG001
        if event.endswith(CONNECTED):
            has_connected.set()

    def send() -> None:
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

    threading.Thread(target=send, daemon=True).start()
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


def check_reachable(url: str) -> None:
    """Check that a server responds at all, before using a library that would retry for a minute.

    Raises: DownloadError within four seconds on a machine without network.
    """
    connect_s, answer_s = 4.0, 30.0
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


def retry_after_s(value: str | None) -> float | None:
    """Parse a Retry-After header, seconds or a date, into seconds to wait; None for anything else.

    Source: RFC 9110, section 10.2.3.
    Example:
        >>> retry_after_s("3"), retry_after_s("soon"), retry_after_s(None)
        (3.0, None, None)
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
