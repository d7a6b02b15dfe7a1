"""Variable-length integers and protobuf fields, the small change of Google's file formats.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

from scratchlm.core.errors import CheckpointError

_MAX_VARINT_BYTES = 10  # 64 bits, seven at a time


def read_varint(data: bytes, at: int, *, where: str) -> tuple[int, int]:
    """A number and the place after it.

    Raises: CheckpointError when it is cut short or does not fit in 64 bits.
    Example:
        >>> read_varint(bytes([0xAC, 0x02]), 0, where="here")
        (300, 2)
    """
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if at + i >= len(data):
            break
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80 and value < 1 << 64:
            return value, at + i + 1
        if byte < 0x80:
            break
    raise CheckpointError(
        f"{where} must hold a whole number at byte {at}, found it cut short or too long; fetch the file again."
    )


def read_fields(data: bytes, *, where: str) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number, and an integer or bytes.

    Raises: CheckpointError for a field that is cut short or of a kind that was given up long ago.
    """
    at = 0
    while at < len(data):
        key, at = read_varint(data, at, where=where)
        kind, number = key & 7, key >> 3
        if kind == 0:
            value, at = read_varint(data, at, where=where)
            yield number, value
            continue
        if kind not in (1, 2, 5):
            raise _cut(where, at)
        n_bytes = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            n_bytes, at = read_varint(data, at, where=where)
        if at + n_bytes > len(data):
            raise _cut(where, at)
        piece = data[at : at + n_bytes]
        yield number, piece if kind == 2 else int.from_bytes(piece, "little")
        at += n_bytes


def _cut(where: str, at: int) -> CheckpointError:
    return CheckpointError(
        f"{where} must hold a protobuf message, found a damaged field at byte {at}; fetch the file again."
    )
