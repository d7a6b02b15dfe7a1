"""Write a download to a partial file beside its target, and check its size and sha256 when it is complete.

One process at a time writes it and the others wait for its lock, which the operating system releases when the process
ends or is killed.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scratchlm.core.atomic_replace import fsync_folder
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import DataError, DownloadError
from scratchlm.core.files import read_json, write_json
from scratchlm.core.run_lock import is_at, lock_file

PARTIAL_SUFFIX = ".partial"
ORIGIN_SUFFIX = ".origin"  # of the partial file's name
LOCK_POLL_S = 0.1

Origin = tuple[str, str]  # a URL and its strong ETag: equal ETags prove equal bytes
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class PartialDownload:
    """The part of a file received so far, with the expected size and hash; locked for this process while open."""

    path: Path
    file: BinaryIO
    size_bytes: int | None
    sha256: str | None
    check: Callable[[Path], str | None] | None = None  # describes what else is wrong with the whole file
    has_waited: bool = False  # whether another process was writing it
    is_resumed: bool = False  # has bytes from before the latest request

    @property
    def origin_path(self) -> Path:
        """The file that records the origin of the bytes, for files without a known sha256."""
        return self.path.with_name(self.path.name + ORIGIN_SUFFIX)

    @property
    def n_bytes(self) -> int:
        """Number of bytes so far; the next write goes after them."""
        return self.file.seek(0, os.SEEK_END)

    def start_over(self) -> None:
        """Remove all bytes."""
        self.file.truncate(0)
        self.is_resumed = False

    def problem(self) -> str | None:
        """Describe what is wrong with the file; None when it is as expected."""
        self.file.flush()
        if self.size_bytes is not None and self.n_bytes != self.size_bytes:
            return f"received {self.n_bytes:,} bytes instead of {self.size_bytes:,}"
        if self.sha256 is not None:
            digest = sha256_of_file(self.path, error=DownloadError)
            if digest != self.sha256:
                return f"its sha256 is {digest} instead of {self.sha256}"
        return None if self.check is None else self.check(self.path)

    def origin(self) -> Origin | None:
        """The recorded origin of the bytes of an earlier process, if any."""
        try:
            noted = read_json(self.origin_path)
        except DataError:
            return None
        url, etag = (noted.get("url"), noted.get("etag")) if isinstance(noted, dict) else (None, None)
        return (url, etag) if isinstance(url, str) and isinstance(etag, str) else None

    def note_origin(self, origin: Origin | None) -> None:
        """Record the origin of the bytes, for a later process that resumes the download."""
        if origin is None or self.sha256 is not None:
            self.origin_path.unlink(missing_ok=True)
        elif origin != self.origin():
            write_json(self.origin_path, {"url": origin[0], "etag": origin[1]}, error=DownloadError)

    def take_name(self, target: Path) -> None:
        """Rename the file to the target after syncing it to disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if sys.platform == "win32":
            self.file.close()  # an open file cannot be renamed there
        self.path.replace(target)
        self.origin_path.unlink(missing_ok=True)
        fsync_folder(target.parent)


@contextlib.contextmanager
def open_partial(
    target: Path,
    *,
    size_bytes: int | None,
    sha256: str | None,
    check: Callable[[Path], str | None] | None = None,
    wait_s: float = 0.0,
) -> Iterator[PartialDownload]:
    """Open and lock a target's partial file; bytes of an earlier download are kept if they can be verified.

    They can be verified by a sha256, or by a server that still has the recorded ETag. An empty partial file is removed.
    Units: wait_s in seconds, the time to wait for another process that is writing the file.
    Raises: DownloadError when another process is still writing it after that time.
    """
    path = target.with_name(target.name + PARTIAL_SUFFIX)
    file, has_waited = _open_locked(path, wait_s=wait_s)
    with file:
        partial = PartialDownload(
            path=path, file=file, size_bytes=size_bytes, sha256=sha256, check=check, has_waited=has_waited
        )
        is_provable = sha256 is not None or partial.origin() is not None
        if not is_provable or (size_bytes is not None and partial.n_bytes > size_bytes):
            partial.start_over()
        partial.is_resumed = partial.n_bytes > 0
        try:
            yield partial
        finally:
            if not file.closed and partial.n_bytes == 0:
                partial.origin_path.unlink(missing_ok=True)
                if sys.platform == "win32":
                    file.close()
                path.unlink(missing_ok=True)


def _open_locked(path: Path, *, wait_s: float) -> tuple[BinaryIO, bool]:
    """The locked file, and whether another process held the lock first."""
    deadline_s, has_waited = time.monotonic() + wait_s, False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        file = os.fdopen(descriptor, "r+b")
        if sys.platform == "win32":
            return file, False
        if not lock_file(file.fileno()):
            file.close()
            if time.monotonic() >= deadline_s:
                raise DownloadError(
                    f"another process is downloading {path}; wait until it has finished, then run this again."
                )
            if not has_waited:
                _log.warning("another process is downloading %s: waiting for it", path.stem)
            has_waited = True
            time.sleep(LOCK_POLL_S)
            continue
        if is_at(file.fileno(), path):
            return file, has_waited
        file.close()  # another process finished and renamed it between open and lock
        has_waited = True
