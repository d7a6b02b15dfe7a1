"""Read LevelDB's table format, TensorFlow's format for the index of a checkpoint: sorted keys with values.

A table consists of blocks of entries with a checksum each, a block that lists them, and a footer.

Source: google/leveldb, doc/table_format.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
from numpy.typing import NDArray

from scratchlm.assets.file_structure import TABLE_FOOTER_BYTES, TABLE_MAGIC
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_bytes

_TRAILER_BYTES = 5  # kind of compression, checksum
_MAX_VARINT_BYTES = 10  # 64 bits, seven per byte
_MAX_UNPACKED = 8 << 20  # bytes of keys and values: an index of GPT-2 has 40,000
_MAX_FILE = 8 << 20
_MAX_ENTRIES = 65_536  # GPT-2 XL has 580, with its optimizer 1,740


def read_table(path: Path) -> dict[bytes, bytes]:
    """Every key and value of a table, in the order of the keys.

    Raises: CheckpointError naming the file and the place that is damaged, and for compressed blocks, which TensorFlow
        does not write.
    """
    if path.is_file() and path.stat().st_size > _MAX_FILE:
        raise _damaged(str(path), f"{path.stat().st_size:,} bytes are more than any index has")
    data = read_bytes(path, error=CheckpointError)
    if len(data) < TABLE_FOOTER_BYTES or not data.endswith(TABLE_MAGIC):
        raise _damaged(str(path), "it does not end with LevelDB's footer")
    footer, where = data[-TABLE_FOOTER_BYTES:], f"{path}, footer"
    _, at = _read_handle(footer, 0, where)
    index_handle, _ = _read_handle(footer, at, where)
    n_unpacked = 0

    def unpack(handle: tuple[int, int], where: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values within a limit: keys share prefixes, so a small file could expand greatly."""
        nonlocal n_unpacked
        for key, value in _entries(_block(data, handle, path), where):
            n_unpacked += len(key) + len(value)
            if n_unpacked > _MAX_UNPACKED:
                raise _damaged(str(path), f"more than {_MAX_UNPACKED:,} bytes of keys and values")
            yield key, value

    entries: dict[bytes, bytes] = {}
    end = 0
    where = f"{path}, index block"
    for _, value in unpack(index_handle, where):
        handle, _ = _read_handle(value, 0, where)
        block_where = f"{path}, block at byte {handle[0]}"
        if handle[0] < end:
            raise _damaged(block_where, "it overlaps the one before")
        end = handle[0] + handle[1]
        for key, item in unpack(handle, block_where):
            if entries and key <= next(reversed(entries)):
                raise _damaged(block_where, f"the key {key!r:.80} is out of order")
            entries[key] = item
            if len(entries) > _MAX_ENTRIES:
                raise _damaged(block_where, f"more than {_MAX_ENTRIES:,} keys")
    return entries


def read_varint(data: bytes, at: int, *, where: str) -> tuple[int, int]:
    """Read an integer of variable length, and the position after it.

    Raises: CheckpointError when it is truncated or does not fit in 64 bits.
    Source: protobuf.dev, "Encoding".
    Example:
        >>> read_varint(bytes([0xAC, 0x02]), 0, where="here")
        (300, 2)
    """
    value = 0
    for i, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80 and value < 1 << 64:
            return value, at + i + 1
    raise _damaged(where, f"the number at byte {at} is cut short or too long")


def has_checksum(data: bytes | NDArray[Any], stored: int) -> bool:
    """Whether bytes have the CRC-32C that TensorFlow and LevelDB stored for them.

    They store it rotated by 15 bits plus a constant.
    """
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF == stored


def _read_handle(data: bytes, at: int, where: str) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, at = read_varint(data, at, where=where)
    size, at = read_varint(data, at, where=where)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int], path: Path) -> bytes:
    offset, size = handle
    where, end = f"{path}, block at byte {offset}", offset + size
    if end + _TRAILER_BYTES > len(data) - TABLE_FOOTER_BYTES:
        raise _damaged(where, f"its {size} bytes reach beyond the {len(data)} bytes of the file")
    if not has_checksum(data[offset : end + 1], int.from_bytes(data[end + 1 : end + 5], "little")):
        raise _damaged(where, "it differs from its checksum")
    if data[end] != 0:
        raise CheckpointError(
            f"{where} is compressed, which cannot be read; save the checkpoint again with TensorFlow, which does not "
            "compress it."
        )
    return data[offset:end]


def _entries(block: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values; each key states how many bytes it shares with the previous key."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * n_restarts
    if end < 0:
        raise _damaged(where, f"{n_restarts} restart points in {len(block)} bytes")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at, where=where)
        n_own, at = read_varint(block, at, where=where)
        n_value, at = read_varint(block, at, where=where)
        if shared > len(key) or at + n_own + n_value > end:
            raise _damaged(where, f"an entry of {n_own} + {n_value} bytes reaches beyond its end")
        key = key[:shared] + block[at : at + n_own]
        at += n_own
        yield key, block[at : at + n_value]
        at += n_value


def _damaged(where: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{where}: the LevelDB table is damaged: {problem}; fetch the file again.")
