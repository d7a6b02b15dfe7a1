"""Check a downloaded zip file as a whole before any of its members is read.

Nothing is extracted by name. An archive with an unsafe name, overlapping members or an impossible size is
malicious, so none of it is used.
"""

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
MAX_PART_BYTES = 255  # of one folder's or file's name; the limit of file systems
MAX_INFLATION = 1_100  # the maximum compression ratio of deflate
_SHIFT = 16  # Unix file type and mode are the upper half of the attributes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def names_problem(members: Iterable[tuple[str, int]], *, are_files: bool = True) -> str | None:
    """Describe what is wrong with the names and attributes of members; None when nothing is.

    are_files: reject names that differ in case alone, since one file would replace the other (not for .npz).
    """
    seen: set[str] = set()
    for name, attributes in members:
        parts = name.removesuffix("/").split("/")
        has_bad_part = not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or name[1:2] == ":"
        if has_bad_part or any(unicodedata.category(letter) == "Cc" for letter in name):
            return f"a member with the unsafe name {name!r:.200}"
        longest = max(len(part.encode("utf-8", "surrogatepass")) for part in parts)
        if longest > MAX_PART_BYTES or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
            return f"a member with an over-long name, {name[:40]!r}..."
        if stat.S_ISLNK(attributes >> _SHIFT):
            return f"{name!r:.200} as a link"
        key = unicodedata.normalize("NFC", name.removesuffix("/"))
        key = key.casefold() if are_files else key
        if key in seen:
            return f"{name!r:.200} twice, or differing in case alone"
        seen.add(key)
    return None


@contextmanager
def checked_zip(
    path: Path, *, are_files: bool = True, error: type[ScratchLMError] = DownloadError
) -> Iterator[zipfile.ZipFile]:
    """Open a zip file after checking its directory.

    Raises: `error` when the file is not a zip file, a member has an unsafe, repeated or over-long name, is a link,
        encrypted, of an impossible size or overlaps another, and when reading a member in the block fails.
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
        raise error(f"{path} is not a valid zip file: {cause}; delete it and download it again.") from cause


def read_member(archive: Path, name: str, *, max_bytes: int) -> bytes:
    """Read one member of a zip file, given its exact name.

    Raises: DownloadError as `checked_zip`, and when the member is absent or larger than max_bytes.
    """
    with checked_zip(archive) as opened:
        info = next((info for info in opened.infolist() if info.orig_filename == name), None)
        if info is None or info.file_size > max_bytes:
            found = "no such member" if info is None else f"{info.file_size:,} bytes"
            raise DownloadError(
                f"{archive} must hold {name!r} of at most {max_bytes:,} bytes, got {found}; delete it and fetch it "
                "again."
            )
        data = opened.read(info)  # zipfile stops at the stated size and checks the checksum
        if len(data) != info.file_size:
            raise zipfile.BadZipFile(f"{len(data):,} bytes of the stated {info.file_size:,}")
        return data


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
            return f"{info.orig_filename!r:.200} stating {info.file_size:,} bytes for {info.compress_size:,} stored"
    spans = sorted((info.header_offset, info.compress_size) for info in infos)
    if any(start + size > following for (start, size), (following, _) in pairwise(spans)):
        return "members on top of each other"
    return None
