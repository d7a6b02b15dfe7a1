"""CRC-32C, the checksum of TensorFlow's files, fast enough for gigabytes without a compiled library.

A CRC is linear: the register after some bytes is a bit-matrix times the register before, xor what the bytes
alone leave behind. So a long run is cut into lanes that numpy carries forward side by side, four table look-ups
for eight bytes of every lane; then neighbouring lanes are joined, the left one moved past the right one's bytes.
Zeros in front of a run change nothing, which makes every run fit the lanes.

Source: RFC 3720, appendix B.4 (the polynomial and its test values).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
_LANE_BYTES = 1024
_CHUNK_LANES = 8192  # 8 MB at once
_ALL_ONES = 0xFFFFFFFF

_Register = NDArray[np.uint32]


def crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The checksum of some bytes.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    register = _ALL_ONES
    chunk_bytes = _CHUNK_LANES * _LANE_BYTES
    for start in range(0, len(array), chunk_bytes):
        chunk = array[start : start + chunk_bytes]
        moved = _apply(_moving(len(chunk)), np.array([register], np.uint32))[0]
        register = int(moved) ^ _left_behind(chunk)
    return register ^ _ALL_ONES


def masked_crc32c(data: bytes | NDArray[np.uint8]) -> int:
    """The checksum as TensorFlow and LevelDB store it: turned by 15 bits, and a constant added."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ALL_ONES


def _left_behind(chunk: NDArray[np.uint8]) -> int:
    """What the register holds after these bytes, begun with zero."""
    lane_bytes = _LANE_BYTES if len(chunk) >= 64 * _LANE_BYTES else 64
    n_lanes = 1 << max(0, (-(-len(chunk) // lane_bytes) - 1).bit_length())
    padded = np.zeros(n_lanes * lane_bytes, np.uint8)
    padded[len(padded) - len(chunk) :] = chunk
    words = padded.view("<u2").reshape(n_lanes, -1, 4)  # (lanes, steps, 4)
    columns = np.ascontiguousarray(words.transpose(1, 2, 0))  # (steps, 4, lanes)
    tables = _word_tables()
    register = np.zeros(n_lanes, np.uint32)
    for first, second, third, fourth in columns:
        register = (
            tables[3].take(first ^ (register & 0xFFFF).astype(np.uint16))
            ^ tables[2].take(second ^ (register >> 16).astype(np.uint16))
            ^ tables[1].take(third)
            ^ tables[0].take(fourth)
        )
    length = lane_bytes
    while len(register) > 1:
        register = _apply(_moving(length), register[0::2]) ^ register[1::2]
        length *= 2
    return int(register[0])


@lru_cache(maxsize=1)
def _byte_table() -> _Register:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


def _past_zero_byte(register: _Register) -> _Register:
    moved: _Register = (register >> 8) ^ _byte_table()[register & 0xFF]
    return moved


@lru_cache(maxsize=1)
def _word_tables() -> tuple[_Register, ...]:
    """Entry k, w: what two bytes, w, leave behind once 2k further bytes have passed."""
    table = _past_zero_byte(_past_zero_byte(np.arange(1 << 16, dtype=np.uint32)))
    tables = [table]
    for _ in range(3):
        table = _past_zero_byte(_past_zero_byte(table))
        tables.append(table)
    return tuple(tables)


def _apply(matrix: _Register, register: _Register) -> _Register:
    """Matrix times register, over bits: column i where bit i is set, all of them xored."""
    result = np.zeros_like(register)
    for i, column in enumerate(matrix):
        result ^= np.where((register >> np.uint32(i)) & 1, column, np.uint32(0))
    return result


@lru_cache(maxsize=64)
def _moving(n_bytes: int) -> _Register:
    """The matrix (32 columns) that moves a register past n bytes of zeros."""
    columns: _Register = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))  # past none
    power = _past_zero_byte(columns)  # past one
    while n_bytes:
        if n_bytes & 1:
            columns = _apply(power, columns)
        power = _apply(power, power)
        n_bytes >>= 1
    return columns
