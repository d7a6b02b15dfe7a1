"""The file beside a download's target: bytes gather in it until they are the promised ones."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from scratchlm.core.errors import DownloadError
from scratchlm.core.files import fsync_folder, sha256_of_file

if sys.platform != "win32":
    import fcntl

PARTIAL_SUFFIX = ".partial"


@dataclass(kw_only=True)
class PartialFile:
    """Some first bytes of a file, and what the whole must be; ours alone while it is open."""

    path: Path
    file: BinaryIO
    size_bytes: int | None
    sha256: str | None
    is_resumed: bool = False  # holds bytes from before the latest request

    @property
    def n_bytes(self) -> int:
        """How many bytes are there; the next write goes after them."""
        return self.file.seek(0, os.SEEK_END)

    def start_over(self) -> None:
        """Drop every byte."""
        self.file.truncate(0)
        self.is_resumed = False

    def problem(self) -> str | None:
        """What is wrong with the bytes that are there, or None when they are as promised."""
        self.file.flush()
        if self.size_bytes is not None and self.n_bytes != self.size_bytes:
            return f"{self.n_bytes:,} bytes came, {self.size_bytes:,} were promised"
        if self.sha256 is None:
            return None
        digest = sha256_of_file(self.path, error=DownloadError)
        return (
            None if digest == self.sha256 else f"the bytes have sha256 {digest}, promised was {self.sha256}"
        )

    def take_name(self, target: Path) -> None:
        """Become the target, after the disk has every byte."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if sys.platform == "win32":
            self.file.close()  # an open file cannot be renamed there
        self.path.replace(target)
        fsync_folder(target.parent)


@contextlib.contextmanager
def open_partial(target: Path, *, size_bytes: int | None, sha256: str | None) -> Iterator[PartialFile]:
    """Open a target's partial file, alone; what an earlier download left in it is kept if it can be proven.

    Only a sha256 can prove it. An empty partial file does not stay behind.
    Raises: DownloadError when another process is filling it.
    """
    path = target.with_name(target.name + PARTIAL_SUFFIX)
    with _open_locked(path) as file:
        partial = PartialFile(path=path, file=file, size_bytes=size_bytes, sha256=sha256)
        if sha256 is None or (size_bytes is not None and partial.n_bytes > size_bytes):
            partial.start_over()
        partial.is_resumed = partial.n_bytes > 0
        try:
            yield partial
        finally:
            if not file.closed and partial.n_bytes == 0:
                if sys.platform == "win32":
                    file.close()
                path.unlink(missing_ok=True)


def _open_locked(path: Path) -> BinaryIO:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        file = os.fdopen(descriptor, "r+b")
        if sys.platform == "win32":
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            file.close()
            raise DownloadError(
                f"{path} should be ours to fill, found another process downloading it; "
                "wait until that one is done, then run this again."
            ) from cause
        except OSError:  # a file system without locks: the sha256 then finds two writers out
            return file
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()  # between open and lock another process finished it: it bears its final name now
