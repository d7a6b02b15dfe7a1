"""LevelDB's table format, in which TensorFlow writes the index of a checkpoint: sorted keys with their values.

Blocks of entries, each compressed or not and with a checksum, then a block that lists them, then a footer.

Source: google/leveldb, doc/table_format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from scratchlm.checkpoints.tensorflow.crc32c import masked_crc32c
from scratchlm.checkpoints.tensorflow.snappy import decompress
from scratchlm.checkpoints.tensorflow.varint import read_varint
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_bytes

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # kind of compression, checksum
_MAX_UNPACKED = 8 << 20  # bytes of keys and values: an index of GPT-2 has 40,000
_MAX_FILE = 8 << 20
_MAX_ENTRIES = 65_536  # GPT-2 XL has 580, with its optimizer 1,740


def read_table(path: Path, *, verify: bool = True) -> dict[bytes, bytes]:
    """Every key and value of a table, in the order of the keys.

    verify: check every block against its checksum.
    Raises: CheckpointError naming the file and the place that is damaged.
    """
    if path.is_file() and path.stat().st_size > _MAX_FILE:
        raise _damaged(str(path), f"{path.stat().st_size:,} bytes, more than any index has")
    data = read_bytes(path, error=CheckpointError)
    if len(data) < FOOTER_BYTES or data[-8:] != struct.pack("<Q", MAGIC):
        raise _damaged(str(path), "no LevelDB footer at its end")
    footer, where = data[-FOOTER_BYTES:], f"{path}, footer,"
    _, at = _read_handle(footer, 0, where)
    index_handle, _ = _read_handle(footer, at, where)
    budget = _Budget(str(path))
    entries: dict[bytes, bytes] = {}
    end = 0
    for _, value in _entries(
        _block(data, index_handle, path, verify, budget), f"{path}, index block,", budget
    ):
        handle, _ = _read_handle(value, 0, f"{path}, index block,")
        where = f"{path}, block at byte {handle[0]},"
        if handle[0] < end:
            raise _damaged(where, "that it overlaps the one before")
        end = handle[0] + handle[1]
        for key, item in _entries(_block(data, handle, path, verify, budget), where, budget):
            if entries and key <= next(reversed(entries)):
                raise _damaged(where, f"the key {key!r:.80} out of order")
            entries[key] = item
            if len(entries) > _MAX_ENTRIES:
                raise _damaged(where, f"more than {_MAX_ENTRIES:,} keys")
    return entries


class _Budget:
    """What may still be unpacked: keys share beginnings, so a small file can ask for a lot."""

    def __init__(self, where: str) -> None:
        self._left = _MAX_UNPACKED
        self._where = where

    def spend(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            raise _damaged(self._where, f"more than {_MAX_UNPACKED:,} bytes of keys and values")

    @property
    def left(self) -> int:
        return self._left


def _read_handle(data: bytes, at: int, where: str) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at, where=where)
    size, at = read_varint(data, at, where=where)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int], path: Path, verify: bool, budget: _Budget) -> bytes:
    offset, size = handle
    where = f"{path}, block at byte {offset},"
    end = offset + size
    if end + _TRAILER_BYTES > len(data) - FOOTER_BYTES:
        raise _damaged(where, f"its {size} bytes reaching beyond the {len(data)} bytes of the file")
    kind, checksum = data[end], int.from_bytes(data[end + 1 : end + 5], "little")
    if verify and masked_crc32c(data[offset : end + 1]) != checksum:
        raise _damaged(where, "another checksum than the one stored")
    if kind == 0:
        return data[offset:end]
    if kind != 1:
        raise _damaged(where, f"compression of kind {kind}")
    unpacked = decompress(data[offset:end], where=where, max_bytes=budget.left)
    budget.spend(len(unpacked))
    return unpacked


def _entries(block: bytes, where: str, budget: _Budget) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; each key says how much of the key before it shares."""
    if len(block) < 4:
        raise _damaged(where, f"{len(block)} bytes")
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
            raise _damaged(where, f"an entry of {n_own} + {n_value} bytes beyond its end")
        budget.spend(shared + n_own + n_value)
        key = key[:shared] + block[at : at + n_own]
        at += n_own
        yield key, block[at : at + n_value]
        at += n_value


def _damaged(where: str, found: str) -> CheckpointError:
    return CheckpointError(f"{where} must be a LevelDB table, found {found}; fetch the file again.")
