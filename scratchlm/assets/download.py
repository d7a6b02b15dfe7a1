"""Download a file, check its size and sha256, and only then rename it to its target.

Bytes are written to `NAME.partial` beside the target, so a target that exists is complete and correct. After a lost
connection, Ctrl-C or a power cut the next attempt requests only the rest. Several processes that want the same file
share one download.
"""

import contextlib
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from scratchlm.assets.http_requests import TRY_AGAIN_STATUS, opened_answer, retry_after_s
from scratchlm.assets.partial_download import PARTIAL_SUFFIX, Origin, PartialDownload, open_partial
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import DownloadError, writing_advice

Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in total (None if unknown)

MAX_REDIRECTS = 5
HUGGING_FACE_HOST = "huggingface.co"  # the only host that receives $HF_TOKEN
GOOD_PROGRESS_BYTES = 1 << 20  # an attempt that transferred this much does not count as a failure
SLOWEST_VARIABLE = "SCRATCHLM_MIN_RATE"  # bytes per second, for networks slower than the default allows
# A proxy that refuses, or has no network behind it, will do so again.
NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Time limits and number of attempts of a download."""

    connect_s: float = 4.0  # for the first connection to all addresses: without a network it fails soon
    timeout_s: float = 30.0  # maximum pause between bytes while reading; also for later connections
    slowest_bytes_per_s: float = 1024.0  # average over slow_s; below it the next address is tried
    slow_s: float = 30.0
    attempts: int = 5  # in a row, at each URL
    backoff_s: float = 1.0  # before the second attempt; doubles each time
    longest_wait_s: float = 120.0  # if a server demands more (Retry-After), the next mirror is tried
    other_process_s: float = 24 * 3600.0  # while another process downloads the same file


def default_patience() -> Patience:
    """The default limits, with $SCRATCHLM_MIN_RATE if it is set.

    Raises: DownloadError when its value is not a number.
    """
    named = os.environ.get(SLOWEST_VARIABLE, "").strip()
    if not named:
        return Patience()
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", named):
        raise DownloadError(
            f"{SLOWEST_VARIABLE} must be a number of bytes per second, got {named!r}; 0 waits for any server."
        )
    return Patience(slowest_bytes_per_s=float(named))


def download(
    urls: Sequence[str],
    target: str | Path,
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    check: Callable[[Path], str | None] | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a file from the first of its mirrors that delivers it.

    A target that already has the sha256 is returned without a request, and so is one that another process finished in
    the meantime. With a sha256 the download resumes where an earlier call stopped, from any mirror; without one only
    from the same address, and only if the server's ETag shows that the file has not changed.

    check: describes what is wrong with the complete file, before it is renamed; None when nothing is.
    Units: progress counts bytes.
    Raises: DownloadError with the failure at each URL.
    """
    target = Path(target)
    if sha256 is not None and _is_right(target, sha256):
        return target
    patience = patience or default_patience()
    _check_online(urls)
    was_there = target.is_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target, size_bytes)
        with (
            _client(patience) as client,
            open_partial(
                target, size_bytes=size_bytes, sha256=sha256, check=check, wait_s=patience.other_process_s
            ) as partial,
        ):
            # Another process may have finished it between the check above and the lock.
            may_be_new = partial.has_waited or not was_there or sha256 is not None
            if may_be_new and _is_right(target, sha256):
                return target
            transfer = _Transfer(
                client=client, partial=partial, progress=progress, patience=patience, origin=partial.origin()
            )
            transfer.fetch_from_first(urls)
            partial.take_name(target)
    except OSError as cause:
        raise DownloadError(f"{target} cannot be written: {cause}; {writing_advice(cause)}.") from cause
    return target


def _is_right(target: Path, sha256: str | None) -> bool:
    """Whether the file exists and has the sha256, if one is known."""
    return target.is_file() and sha256 in (None, sha256_of_file(target, error=DownloadError))


class _TryAgainError(DownloadError):
    """A failure after which the next attempt may succeed."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s  # requested by the server


@dataclass(kw_only=True)
class _Transfer:
    """The download of one file, and the origin of the bytes received so far."""

    client: httpx.Client
    partial: PartialDownload
    progress: Progress | None
    patience: Patience
    origin: Origin | None = None  # of the bytes received so far
    connect_s: float = 0.0  # for the first connection to an address
    has_connected: bool = False  # to any address; if none succeeds, there is no network

    def fetch_from_first(self, urls: Sequence[str]) -> None:
        """Try the mirrors in order until one delivers the expected bytes."""
        failures = []
        self.connect_s = self.patience.connect_s / max(1, len(urls))
        if self.partial.sha256 is None and self.origin is not None:  # only the same address can resume it
            urls = sorted(urls, key=lambda url: self.origin is None or url != self.origin[0])
        for url in urls:
            try:
                self.fetch(url)
                problem = self.partial.problem()
                if problem is not None and self.partial.is_resumed:  # the older part may be wrong
                    self.partial.start_over()
                    self.fetch(url)
                    problem = self.partial.problem()
            except DownloadError as failure:
                failures.append(f"{url}: {failure}")
                continue
            if problem is None:
                return
            self.partial.start_over()  # no mirror can resume wrong bytes
            failures.append(f"{url}: {problem}")
        is_provable = self.partial.sha256 is not None or self.origin is not None
        is_kept = is_provable and self.partial.n_bytes > 0
        raise DownloadError(
            f"{self.partial.path.name.removesuffix(PARTIAL_SUFFIX)} could not be downloaded: "
            f"{'; '.join(failures)}. Check the connection (HTTPS_PROXY and SSL_CERT_FILE "
            f"are respected), then run this again{'; it will resume' if is_kept else ''}."
        )

    def fetch(self, url: str) -> None:
        """Repeat the request to one URL until it succeeds or the attempts are used up."""
        patience, n_failures = self.patience, 0
        n_most = self.partial.n_bytes  # bytes received a second time are not progress
        while True:
            try:
                self.attempt(url)
                return
            except _TryAgainError as trouble:
                has_moved = self.partial.n_bytes - n_most >= GOOD_PROGRESS_BYTES
                n_most = max(n_most, self.partial.n_bytes)
                n_failures = 1 if has_moved else n_failures + 1
                if n_failures >= patience.attempts:
                    raise DownloadError(f"{trouble} ({n_failures} attempts)") from trouble
                if trouble.wait_s is not None and trouble.wait_s > patience.longest_wait_s:
                    raise DownloadError(f"{trouble}, and asks to wait {trouble.wait_s:.0f} s") from trouble
                backoff_s = min(patience.backoff_s * 2 ** (n_failures - 1), patience.longest_wait_s)
                time.sleep(backoff_s if trouble.wait_s is None else trouble.wait_s)

    def attempt(self, url: str) -> None:
        """Send one request for the missing bytes and append them to the partial file."""
        partial = self.partial
        is_same_origin = self.origin is not None and self.origin[0] == url
        if partial.sha256 is None and not is_same_origin:
            partial.start_over()  # nothing would prove that the parts belong to the same file
        offset = partial.n_bytes
        if offset > 0 and offset == partial.size_bytes:
            return  # complete, not yet checked
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and is_same_origin and self.origin is not None:
            headers["If-Range"] = self.origin[1]
        try:
            with self.follow(url, headers) as response:
                self.has_connected = True
                has_same_etag = self.origin is not None and response.headers.get("etag") == self.origin[1]
                is_proven = partial.sha256 is not None or has_same_etag
                if is_proven and _is_all_there(response, offset):
                    return
                n_total = self.check_answer(response, url, offset)
                self.receive(response, n_total)
        except httpx.InvalidURL as cause:  # httpx parses a redirect's address before this code does
            raise DownloadError(f"the server redirects to an invalid address ({cause})") from cause
        except httpx.TransportError as cause:
            if _is_certificate_refused(cause):
                raise DownloadError(f"the server's certificate is not trusted ({cause})") from cause
            if isinstance(cause, NOT_CONNECTED) and not self.has_connected:
                raise DownloadError(f"no connection ({str(cause) or type(cause).__name__})") from cause
            raise _TryAgainError(f"the connection failed ({str(cause) or type(cause).__name__})") from cause
        n_stated = n_total if partial.size_bytes is None else partial.size_bytes
        if n_stated is not None and partial.n_bytes < n_stated:
            raise _TryAgainError(f"the connection ended after {partial.n_bytes:,} of {n_stated:,} bytes")

    @contextlib.contextmanager
    def follow(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The response after at most MAX_REDIRECTS redirects, none of which leads from https to http."""
        start = here = _checked_url(url, None)
        connect_s = self.patience.timeout_s if self.has_connected else self.connect_s
        for _ in range(MAX_REDIRECTS + 1):
            token = _token_header() if _may_see_token(start) and _may_see_token(here) else {}
            with opened_answer(
                self.client, here, headers | token, connect_s=connect_s, answer_s=self.patience.timeout_s
            ) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                here = _checked_url(response.headers["location"], here)
        raise DownloadError(f"more than {MAX_REDIRECTS} redirects, the last one to {here}")

    def check_answer(self, response: httpx.Response, url: str, offset: int) -> int | None:
        """Raise unless the response can be the file; return the file's total bytes, if the server sends them."""
        status = response.status_code
        answer = f"the server answered {status} {httpx.codes.get_reason_phrase(status)}".rstrip()
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            self.partial.start_over()
            raise _TryAgainError(f"{answer} to a request from byte {offset:,} on")
        if status in TRY_AGAIN_STATUS:
            raise _TryAgainError(answer, wait_s=retry_after_s(response.headers.get("retry-after")))
        if status != HTTPStatus.OK and not (status == HTTPStatus.PARTIAL_CONTENT and offset):
            raise DownloadError(answer)
        _check_content(response, url)
        etag = response.headers.get("etag", "W/")
        origin = None if etag.startswith("W/") else (url, etag)  # a weak ETag does not prove equal bytes
        n_total = _as_int(response.headers.get("content-length"))
        if status == HTTPStatus.PARTIAL_CONTENT:
            n_total = self.check_range(response.headers.get("content-range", ""), offset, origin)
        n_stated = self.partial.size_bytes
        if n_total is not None and n_stated is not None and n_total != n_stated:
            raise DownloadError(f"the file has {n_total:,} bytes there instead of {n_stated:,}")
        if status == HTTPStatus.OK:  # the whole file, even if only the rest was requested
            self.partial.start_over()
        self.partial.is_resumed = self.partial.n_bytes > 0
        self.origin = origin
        self.partial.note_origin(origin)
        return n_total

    def check_range(self, content_range: str, offset: int, origin: Origin | None) -> int | None:
        """Check that this is the rest of the same file; otherwise the next attempt starts over."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip())
        is_same = self.partial.sha256 is not None or origin == self.origin
        if found is None or int(found[1]) != offset or not is_same:
            self.partial.start_over()
            raise _TryAgainError(
                f"the server answered a request for the bytes from {offset:,} on with the range "
                f"{content_range or 'none'!r}{'' if is_same else ' of a changed file'}"
            )
        return _as_int(found[2])

    def receive(self, response: httpx.Response, n_total: int | None) -> None:
        """Write the body, but no more than the expected number of bytes."""
        n_expected = self.partial.size_bytes if n_total is None else n_total
        n_done = n_before = self.partial.n_bytes
        since_s = time.monotonic()
        for piece in response.iter_raw():
            n_done += len(piece)
            now_s = time.monotonic()
            if now_s - since_s >= self.patience.slow_s:
                rate = (n_done - n_before) / (now_s - since_s)
                if rate < self.patience.slowest_bytes_per_s:
                    self.partial.file.write(piece)
                    raise DownloadError(
                        f"only {rate:,.0f} bytes per second arrived for {self.patience.slow_s:g} s "
                        f"({SLOWEST_VARIABLE} sets the minimum)"
                    )
                n_before, since_s = n_done, now_s
            if n_expected is not None and n_done > n_expected:
                self.partial.start_over()
                raise DownloadError(f"more than the expected {n_expected:,} bytes arrived")
            self.partial.file.write(piece)
            if self.progress is not None:
                self.progress(n_done, n_expected)


def _client(patience: Patience) -> httpx.Client:
    try:
        return httpx.Client(
            timeout=patience.timeout_s,
            follow_redirects=False,  # `follow` checks each of them
            headers={"User-Agent": "scratchlm", "Accept-Encoding": "identity"},  # uncompressed bytes
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as cause:
        raise DownloadError(
            f"the environment's network settings cannot be used: {cause}; "
            "check SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY and ALL_PROXY."
        ) from cause


def _check_online(urls: Sequence[str]) -> None:
    """Respect $HF_HUB_OFFLINE for every address except $SCRATCHLM_MIRROR."""
    is_offline = os.environ.get(OFFLINE_VARIABLE, "").strip().upper() in {"1", "ON", "YES", "TRUE"}
    mirror = os.environ.get("SCRATCHLM_MIRROR", "").strip()
    if is_offline and not any(mirror and url.startswith(mirror) for url in urls):
        raise DownloadError(
            f"{OFFLINE_VARIABLE} is set, so {urls[0] if urls else 'nothing'} was not requested; "
            "unset it, or set SCRATCHLM_MIRROR to an address that can be reached."
        )


def _checked_url(location: str, origin: httpx.URL | None) -> httpx.URL:
    try:
        url = httpx.URL(location) if origin is None else origin.join(location)
    except httpx.InvalidURL as cause:
        raise DownloadError(f"{location!r} is not a valid address ({cause})") from cause
    if url.scheme not in ("http", "https") or not url.host:
        raise DownloadError(f"{str(url)!r} is not an http(s) address")
    if origin is not None and origin.scheme == "https" and url.scheme != "https":
        raise DownloadError(f"the server redirects from https to plain http, {url}")
    return url


def _may_see_token(url: httpx.URL) -> bool:
    return url.scheme == "https" and url.host == HUGGING_FACE_HOST and url.port is None


def _token_header() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise DownloadError(
            "HF_TOKEN contains characters that are not printable ASCII; set it again or unset it"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}


def _is_certificate_refused(failure: BaseException) -> bool:
    """Whether the connection failed because of the server's certificate, so that trying again is useless."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_all_there(response: httpx.Response, offset: int) -> bool:
    """Whether the server reports that nothing follows the last byte."""
    is_refused = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return is_refused and offset > 0 and response.headers.get("content-range") == f"bytes */{offset}"


def _check_content(response: httpx.Response, url: str) -> None:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise DownloadError(f"the body is encoded ({encoding}), but plain bytes were requested")
    is_page = response.headers.get("content-type", "").startswith("text/html")
    if is_page and not url.endswith((".html", ".htm")):
        raise DownloadError("the server sent a web page instead of the file, perhaps a login page")


def _as_int(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _check_space(target: Path, size_bytes: int | None) -> None:
    n_free = shutil.disk_usage(target.parent).free
    if size_bytes is not None and n_free < size_bytes:
        raise DownloadError(
            f"{target} needs {size_bytes:,} bytes, but its disk has {n_free:,} free; free some space or set "
            "SCRATCHLM_HOME to a folder on another disk."
        )
