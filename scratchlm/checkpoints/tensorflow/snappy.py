"""Snappy, the compression that LevelDB's blocks may have: reading only.

Source: google/snappy, format_description.txt.
"""

from __future__ import annotations

from scratchlm.checkpoints.tensorflow.varint import read_varint
from scratchlm.core.errors import CheckpointError

MAX_RATIO = 64  # a copy makes at most 64 bytes out of 2


def decompress(data: bytes, *, where: str, max_bytes: int) -> bytes:
    """The bytes that were compressed.

    Raises: CheckpointError when they are damaged, or would be more than max_bytes.
    """
    n_bytes, at = read_varint(data, 0, where=where)
    if n_bytes > min(max_bytes, MAX_RATIO * len(data)):
        raise _damaged(where, f"{n_bytes} bytes out of {len(data)}")
    out = bytearray()
    while at < len(data):
        tag, at = data[at], at + 1
        if tag & 3 == 0:
            length, at = _literal_length(data, tag >> 2, at, where)
            if at + length > len(data):
                raise _damaged(where, "a literal beyond the end")
            out += data[at : at + length]
            at += length
        else:
            length, distance, at = _copy(data, tag, at, where)
            if not 0 < distance <= len(out):
                raise _damaged(where, "a copy from before the beginning")
            piece = out[-distance:] if distance <= length else out[-distance : len(out) - distance + length]
            out += (piece * (-(-length // len(piece))))[:length]
        if len(out) > n_bytes:
            raise _damaged(where, f"more than the {n_bytes} bytes it tells")
    if len(out) != n_bytes:
        raise _damaged(where, f"{len(out)} of the {n_bytes} bytes it tells")
    return bytes(out)


def _literal_length(data: bytes, code: int, at: int, where: str) -> tuple[int, int]:
    if code < 60:
        return code + 1, at
    n = code - 59  # bytes of the length
    if at + n > len(data):
        raise _damaged(where, "a length cut short")
    return int.from_bytes(data[at : at + n], "little") + 1, at + n


def _copy(data: bytes, tag: int, at: int, where: str) -> tuple[int, int, int]:
    """Length, distance and where to read on."""
    n = {1: 1, 2: 2, 3: 4}[tag & 3]
    if at + n > len(data):
        raise _damaged(where, "a copy cut short")
    number = int.from_bytes(data[at : at + n], "little")
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, (tag >> 5) << 8 | number, at + 1
    return (tag >> 2) + 1, number, at + n


def _damaged(where: str, found: str) -> CheckpointError:
    return CheckpointError(f"{where} must hold Snappy-compressed bytes, found {found}; fetch the file again.")
