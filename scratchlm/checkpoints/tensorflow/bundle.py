"""Read TensorFlow checkpoints, `model.ckpt.index` and `model.ckpt.data-00000-of-00001`, without TensorFlow.

The index is a LevelDB table: under the empty key a header, under each tensor's name its dtype, shape, shard,
offset and checksum. The data files contain only the values, one tensor after the other.

Source: tensorflow/core/protobuf/tensor_bundle.proto and util/tensor_bundle.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.checkpoints.lazy_mapping import LazyMapping
from scratchlm.checkpoints.tensorflow.leveldb_table import has_checksum, read_table, read_varint
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
    """Type, shape and place of a tensor; offset and size in bytes."""

    number_type: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    checksum: int = 0
    is_sliced: bool = False


class TensorFlowBundle(LazyMapping[NDArray[Any]]):
    """The tensors of a checkpoint by name, each mapped read-only from its file when it is looked up.

    bfloat16 becomes float32; every other dtype is kept.
    Raises: CheckpointError for a tensor of strings, one saved in slices, and one that differs from its checksum.
    """

    def __init__(self, entries: Mapping[str, _Entry], files: Mapping[int, Path]) -> None:
        super().__init__(entries, self._read_tensor)
        self._entries = dict(entries)
        self._files = files  # by the number of the shard

    @property
    def n_bytes(self) -> int:
        """Bytes of the data files that belong to tensors."""
        return sum(entry.size for entry in self._entries.values())

    def _read_tensor(self, name: str) -> NDArray[Any]:
        entry = self._entries[name]
        kind = _NUMBER_TYPES.get(entry.number_type)
        path = self._files.get(entry.shard, Path())
        if kind is None or entry.is_sliced:
            found = "saved in slices" if entry.is_sliced else f"of TensorFlow's type {entry.number_type}"
            raise CheckpointError(
                f"{path} holds {name:.200} {found}, which cannot be read; save it again unpartitioned, as numbers."
            )
        if entry.size == 0:
            return np.zeros(entry.shape, kind)
        try:
            raw = np.memmap(path, np.uint8, "r", entry.offset, (entry.size,))
        except (OSError, ValueError) as cause:
            raise CheckpointError(
                f"{name:.200} cannot be read from {path}: {cause}; fetch the file again."
            ) from cause
        if not has_checksum(raw, entry.checksum):
            raise CheckpointError(
                f"{path} is damaged: {name:.200} differs from its checksum in the index; fetch it again."
            )
        array: NDArray[Any] = raw.view(f"<{kind}").reshape(entry.shape)
        if entry.number_type == _BFLOAT16:
            return np.left_shift(array.astype(np.uint32), 16).view(np.float32)
        return array


def open_bundle(prefix: str | Path, *, data: Path | None = None) -> TensorFlowBundle:
    """Open the checkpoint whose files begin with `prefix`, such as `gpt2/124M/model.ckpt`.

    The checksums of the index are verified now, that of a tensor when it is read.
    data: path of the only data file, if it has not been renamed yet.
    Raises: CheckpointError naming the file that is missing or damaged, and what is wrong with it.
    """
    prefix = Path(prefix)
    index = prefix.with_name(prefix.name + ".index")
    table = read_table(index)
    n_shards = _number_of_shards(table.pop(b"", None), str(index))
    if data is not None and n_shards != 1:
        raise _damaged(str(index), f"{n_shards} data files instead of one")
    entries: dict[str, _Entry] = {}
    for key, value in table.items():
        try:
            name = key.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise _damaged(str(index), f"a name that is not text, {key!r:.80}") from cause
        entries[name] = _read_entry(value, f"{index}, entry {name:.200},", n_shards)
    shards = {entry.shard for entry in entries.values() if entry.size}
    names = {shard: f"{prefix.name}.data-{shard:05d}-of-{n_shards:05d}" for shard in shards}
    files = {shard: data or prefix.with_name(name) for shard, name in names.items()}
    _check_places(entries, files)
    return TensorFlowBundle(entries, files)


def data_problem(data: Path, *, prefix: Path) -> str | None:
    """The reason why a data file does not belong to the index beside `prefix`, or None if it does.

    Reads all of it: each tensor has a checksum.
    """
    try:
        bundle = open_bundle(prefix, data=data)
        for name in bundle:
            bundle[name]
    except CheckpointError as cause:
        return f"it does not fit its index: {cause}"
    n_bytes, n_there = bundle.n_bytes, data.stat().st_size
    return None if n_bytes == n_there else f"it has {n_there:,} bytes, but its index lists {n_bytes:,}"


def _number_of_shards(header: bytes | None, where: str) -> int:
    if header is None:
        raise _damaged(where, "no header")
    fields = dict(_read_fields(header, where))
    n_shards = fields.get(1, 0)
    if not isinstance(n_shards, int) or not 1 <= n_shards <= _MAX_SHARDS:
        raise _damaged(where, f"{n_shards!r} data files")
    if fields.get(2, 0) != 0:
        raise _damaged(where, "numbers of a big-endian machine")
    return n_shards


def _read_entry(value: bytes, where: str, n_shards: int) -> _Entry:
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: tuple[int, ...] = ()
    is_sliced = False
    for number, field in _read_fields(value, where):
        if number == 2 and isinstance(field, bytes):
            shape = _read_shape(field, where)
        elif number == 7:
            is_sliced = True
        elif number in numbers and isinstance(field, int):
            numbers[number] = field
        else:
            raise _damaged(where, f"field {number}")
    entry = _Entry(numbers[1], shape, numbers[3], numbers[4], numbers[5], numbers[6], is_sliced)
    if entry.shard >= n_shards:
        raise _damaged(where, f"data file {entry.shard} of {n_shards}")
    kind = _NUMBER_TYPES.get(entry.number_type)
    if kind is not None and not is_sliced and math.prod(shape) * np.dtype(kind).itemsize != entry.size:
        raise _damaged(where, f"{entry.size} bytes for the shape {shape}")
    if math.prod(filter(None, shape)) >= 1 << 40:  # of an empty tensor, too
        raise _damaged(where, f"the shape {shape}")
    return entry


def _read_shape(value: bytes, where: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for number, dimension in _read_fields(value, where):
        if number != 2 or not isinstance(dimension, bytes) or len(sizes) >= _MAX_DIMENSIONS:
            raise _damaged(where, "a shape of unknown rank")
        size = dict(_read_fields(dimension, where)).get(1, 0)
        if not isinstance(size, int):
            raise _damaged(where, "a size that is not a number")
        sizes.append(size)
    return tuple(sizes)


def _read_fields(data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: number, and an integer or bytes.

    Source: protobuf.dev, "Encoding".
    """
    at = 0
    while at < len(data):
        key, at = read_varint(data, at, where=where)
        kind, number = key & 7, key >> 3
        if kind == 0:
            value, at = read_varint(data, at, where=where)
            yield number, value
            continue
        n_bytes = {1: 8, 2: 0, 5: 4}.get(kind)
        if kind == 2:
            n_bytes, at = read_varint(data, at, where=where)
        if n_bytes is None or at + n_bytes > len(data):
            raise _damaged(where, f"a damaged field at byte {at}")
        piece = data[at : at + n_bytes]
        yield number, piece if kind == 2 else int.from_bytes(piece, "little")
        at += n_bytes


def _check_places(entries: Mapping[str, _Entry], files: Mapping[int, Path]) -> None:
    """Check that every tensor is within its data file, and that no two overlap."""
    sizes: dict[int, int] = {}
    for shard, path in files.items():
        try:
            sizes[shard] = path.stat().st_size
        except OSError as cause:
            raise CheckpointError(
                f"the data file {path} cannot be read: {cause.strerror}; fetch it into the folder of the index."
            ) from cause
    by_place = sorted((e.shard, e.offset, e.size, name) for name, e in entries.items() if e.size)
    last_shard, end = -1, 0
    for shard, offset, size, name in by_place:
        if offset + size > sizes[shard]:
            raise CheckpointError(
                f"{files[shard]} is cut short: {name:.200} ends at byte {offset + size}, the file at {sizes[shard]}; "
                "fetch it again."
            )
        if shard == last_shard and offset < end:
            raise _damaged(str(files[shard]), f"{name:.200} on top of another tensor")
        last_shard, end = shard, offset + size


def _damaged(where: str, found: str) -> CheckpointError:
    return CheckpointError(
        f"{where} is not a valid TensorFlow checkpoint: it has {found}; fetch the file again."
    )
