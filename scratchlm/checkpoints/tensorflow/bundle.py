"""TensorFlow checkpoints without TensorFlow: `model.ckpt.index` and `model.ckpt.data-00000-of-00001`.

The index is a LevelDB table: under the empty key a header, under each tensor's name its number type, shape,
shard, place and checksum. The data files hold nothing but the numbers, one tensor after the other.

Source: tensorflow/core/protobuf/tensor_bundle.proto and util/tensor_bundle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.checkpoints.tensorflow.crc32c import masked_crc32c
from scratchlm.checkpoints.tensorflow.leveldb_table import read_table
from scratchlm.checkpoints.tensorflow.varint import read_fields
from scratchlm.core.errors import CheckpointError

_BFLOAT16 = 14
_NUMBER_TYPES = {  # tensorflow/core/framework/types.proto
    1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 8: "c8", 9: "i8", 10: "?", _BFLOAT16: "u2",
    17: "u2", 18: "c16", 19: "f2", 22: "u4", 23: "u8",
}  # fmt: skip
_MAX_DIMENSIONS = 32
_MAX_SHARDS = 10_000


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies; sizes in bytes."""

    number_type: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_sliced: bool = False


class TensorFlowBundle(Mapping[str, NDArray[Any]]):
    """The tensors of a checkpoint by name, each mapped from its file when it is asked for, read-only.

    bfloat16 becomes float32; every other number type stays.
    Raises: CheckpointError for a tensor of strings, one saved in slices, and one whose bytes differ from its
        checksum.
    """

    def __init__(
        self,
        prefix: Path,
        entries: Mapping[str, _Entry],
        *,
        header: _Header,
        verify: bool,
        data: Path | None = None,
    ) -> None:
        self.prefix = prefix
        self._data = data
        self._entries = dict(entries)
        self._header = header
        self._verify = verify

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        kind = _NUMBER_TYPES.get(entry.number_type)
        if kind is None or entry.is_sliced:
            found = "saved in slices" if entry.is_sliced else f"of TensorFlow's type {entry.number_type}"
            raise CheckpointError(
                f"{self.prefix} should hold {name:.200} as plain numbers, found it {found}; save it again "
                "unpartitioned, as numbers."
            )
        if entry.size == 0:
            return np.zeros(entry.shape, kind)
        path = self._data or _shard_path(self.prefix, entry.shard, self._header.n_shards)
        try:
            raw = np.memmap(path, np.uint8, "r", entry.offset, (entry.size,))
        except (OSError, ValueError) as cause:
            raise CheckpointError(
                f"{path} should hold {name:.200}, got: {cause}; fetch the file again."
            ) from cause
        if self._verify and masked_crc32c(raw) != entry.checksum:
            raise CheckpointError(
                f"{path} should hold {name:.200} with the checksum that the index tells, found another; it is "
                "damaged: fetch it again."
            )
        array: NDArray[Any] = raw.view(
            np.dtype(kind).newbyteorder(">" if self._header.is_big_endian else "<")
        )
        array = array.reshape(entry.shape)
        if entry.number_type == _BFLOAT16:
            return np.left_shift(array.astype(np.uint32), 16).view(np.float32)
        return array.astype(array.dtype.newbyteorder("=")) if self._header.is_big_endian else array

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def n_bytes(self) -> int:
        """How many bytes of the data files the tensors take."""
        return sum(entry.size for entry in self._entries.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return self._entries[name].shape


@dataclass(frozen=True)
class _Header:
    n_shards: int = 1
    is_big_endian: bool = False


def open_bundle(prefix: str | Path, *, verify: bool = True, data: Path | None = None) -> TensorFlowBundle:
    """The checkpoint whose files begin with `prefix`, such as `gpt2/124M/model.ckpt`.

    verify: check the index now, and every tensor when it is read, against their checksums.
    data: where the only data file lies, if it does not have its name yet.
    Raises: CheckpointError naming the file that is missing or damaged, and what is wrong with it.
    """
    prefix = Path(prefix)
    index = prefix.with_name(prefix.name + ".index")
    table = read_table(index, verify=verify)
    header = _read_header(table.pop(b"", None), str(index))
    entries: dict[str, _Entry] = {}
    for key, value in table.items():
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise _damaged(str(index), f"a name that is no text, {key!r:.80}") from cause
        entries[name] = _read_entry(value, f"{index}, entry {name:.200},", header)
    if data is not None and header.n_shards != 1:
        raise _damaged(str(index), f"{header.n_shards} data files where there is one")
    _check_places(prefix, entries, header, data)
    return TensorFlowBundle(prefix, entries, header=header, verify=verify, data=data)


def data_problem(data: Path, *, prefix: Path) -> str | None:
    """What shows that a data file is not the one that the index beside `prefix` tells of, or None.

    Reads all of it: each tensor has a checksum.
    """
    try:
        bundle = open_bundle(prefix, data=data)
        for name in bundle:
            bundle[name]
    except CheckpointError as cause:
        return f"it does not fit its index: {cause}"
    n_bytes, n_there = bundle.n_bytes, data.stat().st_size
    return None if n_bytes == n_there else f"its index tells of {n_bytes:,} bytes, found {n_there:,}"


def _read_header(value: bytes | None, where: str) -> _Header:
    if value is None:
        raise _damaged(where, "no header")
    fields = dict(read_fields(value, where=where))
    n_shards, endianness = fields.get(1, 0), fields.get(2, 0)
    if not isinstance(n_shards, int) or not 1 <= n_shards <= _MAX_SHARDS or endianness not in (0, 1):
        raise _damaged(where, f"{n_shards!r} data files")
    return _Header(n_shards=n_shards, is_big_endian=endianness == 1)


def _read_entry(value: bytes, where: str, header: _Header) -> _Entry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    is_sliced = False
    for number, field in read_fields(value, where=where):
        if number == 2 and isinstance(field, bytes):
            shape = _read_shape(field, where)
        elif number == 7:
            is_sliced = True
        elif number in numbers and isinstance(field, int):
            numbers[number] = field
        else:
            raise _damaged(where, f"field {number}")
    entry = _Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6], is_sliced)
    if entry.shard >= header.n_shards:
        raise _damaged(where, f"data file {entry.shard} of {header.n_shards}")
    kind = _NUMBER_TYPES.get(entry.number_type)
    if kind is not None and not is_sliced and math.prod(shape) * np.dtype(kind).itemsize != entry.size:
        raise _damaged(where, f"{entry.size} bytes for the shape {shape}")
    if math.prod(filter(None, shape)) >= 1 << 40:  # of an empty tensor, too
        raise _damaged(where, f"the shape {shape}")
    return entry


def _read_shape(value: bytes, where: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, dimension in read_fields(value, where=where):
        if number != 2 or not isinstance(dimension, bytes) or len(sizes) >= _MAX_DIMENSIONS:
            raise _damaged(where, "a shape of unknown rank")
        size = dict(read_fields(dimension, where=where)).get(1, 0)
        if not isinstance(size, int):
            raise _damaged(where, "a size that is no number")
        sizes.append(size)
    return tuple(sizes)


def _check_places(prefix: Path, entries: Mapping[str, _Entry], header: _Header, data: Path | None) -> None:
    """Every tensor lies within its data file, and no two share a byte."""
    by_place = sorted(
        ((entry.shard, entry.offset, entry.size, name) for name, entry in entries.items() if entry.size),
    )
    sizes: dict[int, int] = {}
    last_shard, end = -1, 0
    for shard, offset, size, name in by_place:
        path = data or _shard_path(prefix, shard, header.n_shards)
        if shard not in sizes:
            try:
                sizes[shard] = path.stat().st_size
            except OSError as cause:
                raise CheckpointError(
                    f"{path} should stand beside the index, got: {cause.strerror}; fetch it again."
                ) from cause
        if offset + size > sizes[shard]:
            raise CheckpointError(
                f"{path} should have at least {offset + size} bytes for {name:.200}, found {sizes[shard]}; it "
                "is cut short: fetch it again."
            )
        if shard == last_shard and offset < end:
            raise _damaged(str(path), f"{name:.200} on top of another tensor")
        last_shard, end = shard, offset + size


def _shard_path(prefix: Path, shard: int, n_shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{n_shards:05d}")


def _damaged(where: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{where} must be of a TensorFlow checkpoint, found {found}; fetch the file again."
    )
