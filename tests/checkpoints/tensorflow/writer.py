"""Write small TensorFlow checkpoints without TensorFlow."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from scratchlm.assets.file_structure import TABLE_MAGIC

NUMBER_TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}  # tensorflow/core/framework/types.proto


def masked_crc32c(data: bytes) -> int:
    """The checksum as TensorFlow and LevelDB store it: rotated by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value) if value else b""


def tensor_entry(array: NDArray[Any], offset: int) -> bytes:
    sizes = b"".join(bytes_field(2, number_field(1, size)) for size in array.shape)
    data = array.tobytes()
    return (
        number_field(1, NUMBER_TYPES[array.dtype.str])
        + bytes_field(2, sizes)
        + number_field(4, offset)
        + number_field(5, len(data))
        + varint(6 << 3 | 5)
        + struct.pack("<I", masked_crc32c(data))
    )


def table(items: Mapping[bytes, bytes]) -> bytes:
    """A LevelDB table of one block."""
    data = b""

    def add(entries: Mapping[bytes, bytes]) -> bytes:
        nonlocal data
        block = b"".join(b"\0" + varint(len(k)) + varint(len(v)) + k + v for k, v in sorted(entries.items()))
        block += struct.pack("<II", 0, 1)
        handle = varint(len(data)) + varint(len(block))
        data += block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0"))
        return handle

    blocks = {max(items): add(items)}
    footer = add({}) + add(blocks)
    return data + footer.ljust(40, b"\0") + TABLE_MAGIC


def bundle(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, bytes]:
    """The index, and the one data file."""
    data, items = b"", {b"": number_field(1, 1) + bytes_field(3, number_field(1, 1))}
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        items[name.encode()] = tensor_entry(array, len(data))
        data += array.tobytes()
    return table(items), data


def write_bundle(prefix: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """`PREFIX.index` and `PREFIX.data-00000-of-00001`."""
    index, data = bundle(arrays)
    prefix.with_name(prefix.name + ".index").write_bytes(index)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
