"""Zip files of others: their members are looked at as a whole before one byte of any is believed.

Nothing is ever extracted by its name. But an archive with a member that would land elsewhere, hide another or
promise what it does not hold was made to do harm, so that none of it is used.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from scratchlm.core.errors import DownloadError, ScratchLMError

MAX_MEMBERS = 65_536  # GPT-2 XL with its optimizer has about 2,000
MAX_NAME_BYTES = 1_000
MAX_PART_BYTES = 255  # of one folder's or file's name: what file systems hold
MAX_INFLATION = 1_100  # deflate cannot pack more than 1,032 bytes into one
_SHIFT = 16  # the file's kind and mode lie in the upper half of the attributes that Unix writes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def names_problem(members: Iterable[tuple[str, int]], *, are_files: bool = True) -> str | None:
    """What is wrong with the names of some members and their attributes, or None when nothing is.

    are_files: names that differ in case alone are refused, since one file would replace the other; the arrays of
        an .npz may differ so.
    """
    seen: set[str] = set()
    for name, attributes in members:
        parts = name.removesuffix("/").split("/")
        if name.startswith("/") or "\\" in name or name[1:2] == ":" or not {"", ".", ".."}.isdisjoint(parts):
            return f"a member with the unsafe name {name!r:.200}"
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            return f"a member with the unsafe name {name!r:.200}"
        longest = max(len(part.encode("utf-8", "surrogatepass")) for part in parts)
        if longest > MAX_PART_BYTES or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            return f"a member with an over-long name, {name[:40]!r}..."
        if stat.S_ISLNK(attributes >> _SHIFT):
            return f"{name!r:.200} as a link"
        same = unicodedata.normalize("NFC", name.removesuffix("/"))
        if are_files:
            same = same.casefold()
        if same in seen:
            return f"{name!r:.200} twice, or differing in case alone"
        seen.add(same)
    return None


@contextmanager
def checked_zip(
    path: Path, *, are_files: bool = True, error: type[ScratchLMError] = DownloadError
) -> Iterator[zipfile.ZipFile]:
    """Open a zip file after checking what its directory claims.

    Raises: `error` when the file is no zip file, when a member has an unsafe, repeated or over-long name, is a link,
        encrypted, of an impossible size or shares bytes with another, and when reading a member in the block fails.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _problem(archive.infolist(), path.stat().st_size, are_files=are_files)
            if problem is not None:
                raise zipfile.BadZipFile(f"it holds {problem}")
            yield archive
    except error:
        raise
    except (
        zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError,
    ) as cause:  # fmt: skip
        raise error(f"{path} is not a sound zip file: {cause}; delete it and get it again.") from cause


def read_member(
    archive: Path, name: str, *, max_bytes: int, error: type[ScratchLMError] = DownloadError
) -> bytes:
    """The bytes of one member of a zip file, by its exact name.

    Raises: `error` as `checked_zip`, and when the member is absent or larger than max_bytes.
    """
    with checked_zip(archive, error=error) as opened:
        info = next((info for info in opened.infolist() if info.orig_filename == name), None)
        if info is None or info.file_size > max_bytes:
            found = "no such member" if info is None else f"{info.file_size:,} bytes"
            raise error(
                f"{archive} must hold {name!r} of at most {max_bytes:,} bytes, got {found}; delete it and fetch it "
                "again."
            )
        return _whole(opened, info)


def _problem(infos: list[zipfile.ZipInfo], archive_bytes: int, *, are_files: bool) -> str | None:
    if len(infos) > MAX_MEMBERS:
        return f"{len(infos):,} members"
    problem = names_problem(((info.orig_filename, info.external_attr) for info in infos), are_files=are_files)
    if problem is not None:
        return problem
    for info in infos:
        if info.flag_bits & 1:
            return f"{info.orig_filename!r:.200} encrypted"
        is_possible = info.file_size <= info.compress_size * MAX_INFLATION and (
            info.compress_type in _METHODS and info.compress_size <= archive_bytes
        )
        if not is_possible or (
            info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size
        ):
            return f"{info.orig_filename!r:.200} promising {info.file_size:,} bytes out of {info.compress_size:,}"
    spans = sorted((info.header_offset, info.compress_size) for info in infos)
    if any(start + size > following for (start, size), (following, _) in pairwise(spans)):
        return "members on top of each other"
    return None


def _whole(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes; zipfile stops at the promised size and compares the checksum."""
    data = opened.read(info)
    if len(data) != info.file_size:
        raise zipfile.BadZipFile(f"{len(data):,} bytes of the promised {info.file_size:,}")
    return data
