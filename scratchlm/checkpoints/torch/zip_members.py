"""The members of a zip file, believed only after every claim of its directory has been checked.

`.pth` and `.npz` files are zip files. Their directory is data from outside: it can name places past the end of
the file, let two members share bytes, or promise a thousand times the bytes that it holds. Here such a file is
an error before anything is allocated. Members that are stored as they are stay on disk, mapped into memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scratchlm.assets.archive_members import MAX_INFLATION, MAX_MEMBERS, names_problem
from scratchlm.core.errors import CheckpointError

MAX_INFLATED_BYTES = 56 << 20  # for a compressed member: it has to fit in memory, and bombs are compressed
_PIECE_BYTES = 1 << 20  # unpacked at once
_STORED, _DEFLATED = 0, 8
_END = struct.Struct("<4s4H2IH")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_END_64_PLACE = struct.Struct("<4sIQI")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """One file inside a zip file: where its bytes lie, and what they must be."""

    name: str
    offset: int  # of its first byte in the zip file
    packed_bytes: int
    size_bytes: int
    crc32: int
    is_stored: bool  # False: compressed


class ZipMembers:
    """A zip file, opened read-only and checked: every member by name, and its bytes.

    Raises: CheckpointError naming the file, the member and what is wrong with it: encrypted, unknown
        compression, an unsafe or repeated name, bytes outside the file or shared with another member.
    Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3.7 to 4.3.16.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = map_file(path)
        self.members: dict[str, ZipMember] = {}
        try:
            start, size, n_members = self._find_directory()
            used = [(start, start + size)]
            entries = list(self._entries(start, size, n_members))
            problem = names_problem(((name, entry[-1]) for name, entry in entries), are_files=False)
            if problem is not None:
                raise self._wrong(f"holds {problem}")
            for name, entry in entries:
                self.members[name], header_at = self._member(name, entry)
                used.append((header_at, self.members[name].offset + self.members[name].packed_bytes))
        except (struct.error, UnicodeDecodeError) as cause:
            raise self._wrong(f"ends or breaks inside its directory ({cause})") from cause
        used.sort()
        for (_, end), (begin, _) in pairwise(used):
            if begin < end:
                raise self._wrong(f"uses the bytes from {begin} to {end} twice")

    def mapped(self, name: str, *, verify: bool = True) -> NDArray[np.uint8]:
        """A stored member's bytes where they lie in the mapped file; changes to them never reach the disk.

        Raises: CheckpointError when the member is absent, compressed, or differs from its checksum.
        """
        member = self._get(name)
        if not member.is_stored:
            raise self._wrong(f"compresses {name!r}, which must be stored as it is to be mapped")
        data = self.data[member.offset : member.offset + member.packed_bytes]
        if verify:
            self._check_crc(member, zlib.crc32(data.data))
        return data

    def read(self, name: str, *, max_bytes: int = MAX_INFLATED_BYTES) -> bytes:
        """All bytes of a small member, unpacked if need be.

        Raises: CheckpointError when it is absent, larger than max_bytes, or differs from its checksum or size.
        """
        return self.unpacked(name, max_bytes=max_bytes).tobytes()

    def unpacked(self, name: str, *, max_bytes: int = MAX_INFLATED_BYTES) -> NDArray[np.uint8]:
        """The same as an array of its own, which is in memory once.

        Raises: CheckpointError as `read`.
        """
        member = self._get(name)
        if member.size_bytes > max_bytes:
            raise self._wrong(f"claims {member.size_bytes:,} bytes for {name!r}, {max_bytes:,} are the most")
        packed = self.data[member.offset : member.offset + member.packed_bytes]
        data = np.array(packed) if member.is_stored else self._inflate(member, packed)
        self._check_crc(member, zlib.crc32(data.data))
        return data

    def _get(self, name: str) -> ZipMember:
        if name not in self.members:
            raise self._wrong(f"lacks the member {name!r}")
        return self.members[name]

    def _inflate(self, member: ZipMember, packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Piece by piece into an array of the promised size; a byte more or less is an error."""
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        data, at, left = np.empty(member.size_bytes, np.uint8), 0, packed.tobytes()
        try:
            while not unpacker.eof:
                piece = unpacker.decompress(left, _PIECE_BYTES)
                left = unpacker.unconsumed_tail
                if at + len(piece) > len(data) or not (piece or left or unpacker.eof):
                    break
                data[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
                at += len(piece)
        except zlib.error as cause:
            raise self._wrong(f"cannot be unpacked at {member.name!r} ({cause})") from cause
        if at != len(data) or not unpacker.eof:
            raise self._wrong(f"holds other than the promised {member.size_bytes:,} bytes in {member.name!r}")
        return data

    def _check_crc(self, member: ZipMember, found: int) -> None:
        if found != member.crc32:
            raise self._wrong(
                f"should have the checksum {member.crc32:08x} for {member.name!r}, found {found:08x}"
            )

    def _find_directory(self) -> tuple[int, int, int]:
        """Start, size and number of entries of the directory, which the file's last bytes tell."""
        n = len(self.data)
        tail_at = max(0, n - _END.size - 0xFFFF)
        tail = self.data[tail_at:].tobytes()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0:
            raise self._wrong("has no zip directory at its end")
        _, disk, _, _, n_members, size, start, n_comment = _END.unpack_from(tail, place)
        end = tail_at + place
        if disk not in (0, 0xFFFF) or end + _END.size + n_comment != n:
            raise self._wrong("ends with bytes that belong to no zip directory")
        if end >= _END_64_PLACE.size:
            mark, _, end_64, _ = _END_64_PLACE.unpack(
                self._bytes(end - _END_64_PLACE.size, _END_64_PLACE.size)
            )
            if mark == b"PK\x06\x07":
                fields = _END_64.unpack(self._bytes(end_64, _END_64.size))
                if fields[0] != b"PK\x06\x06" or end_64 > end:
                    raise self._wrong("points to a large-file directory that is not there")
                n_members, size, start, end = fields[7], fields[8], fields[9], end_64
        if n_members > MAX_MEMBERS or start + size > end:
            raise self._wrong(f"claims {n_members:,} members in a directory of {size:,} bytes at {start:,}")
        return start, size, n_members

    def _entries(self, start: int, size: int, n_members: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each entry's name and (flags, method, crc32, packed size, size, local header's place, attributes)."""
        directory, at = self._bytes(start, size), 0
        for _ in range(n_members):
            (
                mark,
                _,
                _,
                flags,
                method,
                _,
                _,
                crc,
                packed,
                full,
                n_name,
                n_extra,
                n_comment,
                *_,
                kind,
                header_at,
            ) = _ENTRY.unpack_from(directory, at)
            at += _ENTRY.size
            name, extra = directory[at : at + n_name], directory[at + n_name : at + n_name + n_extra]
            at += n_name + n_extra + n_comment
            if mark != b"PK\x01\x02" or at > size:
                raise self._wrong("has a damaged directory entry")
            full, packed, header_at = _large_sizes(extra, [full, packed, header_at])
            yield name.decode("utf-8"), (flags, method, crc, packed, full, header_at, kind)
        if at != size:
            raise self._wrong(f"has {size - at} bytes too many in its directory")

    def _member(self, name: str, entry: tuple[int, ...]) -> tuple[ZipMember, int]:
        flags, method, crc, packed, full, header_at, _ = entry
        if flags & 1 or method not in (_STORED, _DEFLATED):
            raise self._wrong(f"encrypts {name!r}, or packs it by method {method}, which we do not have")
        is_stored = method == _STORED
        if (is_stored and packed != full) or full > packed * MAX_INFLATION:
            raise self._wrong(f"promises {full:,} bytes of {name!r} out of {packed:,}, which cannot be")
        local = _LOCAL.unpack(self._bytes(header_at, _LOCAL.size))
        offset = header_at + _LOCAL.size + local[9] + local[10]
        local_name = self._bytes(header_at + _LOCAL.size, local[9])
        if local[0] != b"PK\x03\x04" or local[3] != method or local_name != name.encode("utf-8"):
            raise self._wrong(f"contradicts its directory where {name!r} begins")
        if offset + packed > len(self.data):
            raise self._wrong(f"should hold {packed:,} bytes of {name!r} at {offset:,}, but ends before")
        member = ZipMember(
            name=name, offset=offset, packed_bytes=packed, size_bytes=full, crc32=crc, is_stored=is_stored
        )
        return member, header_at

    def _bytes(self, start: int, size: int) -> bytes:
        if start + size > len(self.data):
            raise self._wrong(f"should reach to byte {start + size:,}, but ends at {len(self.data):,}")
        return self.data[start : start + size].tobytes()

    def _wrong(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} must be an undamaged zip file, but it {problem}; fetch or save it again."
        )


def map_file(path: Path) -> NDArray[np.uint8]:
    """A file's bytes in place: read when they are touched, copied when they are changed, never written back.

    Raises: CheckpointError when the file is missing, empty, a folder, or may not be read.
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as cause:
        raise CheckpointError(
            f"{path} should be a readable file with something in it, got: {cause}; check the path."
        ) from cause


def _large_sizes(extra: bytes, values: list[int]) -> list[int]:
    """Sizes and place of a member past 4 GiB stand in an extra field; 0xFFFFFFFF says which of them."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = iter(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
            return [next(numbers, value) if value == 0xFFFFFFFF else value for value in values]
        at += 4 + size
    return values
