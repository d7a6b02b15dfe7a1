"""PyTorch's own files, `.pth`, `.pt` and `pytorch_model.bin`: read without running them, and written for others.

Since PyTorch 1.6 such a file is a zip: `data.pkl` tells the structure, one member for each storage holds the
numbers. We read the pickle with our own small machine (core/pickle_reader.py) and leave the numbers on disk, mapped
into memory. Older files are pickles one after another with the numbers behind them; those work as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.checkpoints.torch.zip_members import ZipMembers, map_file
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import new_file
from scratchlm.core.pickle_reader import Allowed, PickleReader

MAX_PICKLE_BYTES = 8 << 20  # names and shapes only: GPT-2 XL with its optimizer needs 0.2 MB
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES_WITHOUT_STORAGE = (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2)
_MAX_DIMENSIONS = 16


@dataclass(frozen=True)
class _Storage:
    """A run of numbers that tensors look into: as bytes, and how many of which kind they are."""

    data: Tensor  # (bytes,), uint8
    dtype: torch.dtype


def read_torch_file(path: str | Path, *, verify: bool = True) -> Any:
    """The value in a file that `torch.save` wrote: dicts, lists, tuples, numbers, text and tensors.

    Nothing in the file runs. Tensors are on the CPU and look into the mapped file where it can be mapped, so a
    large file costs memory only as it is used; changing them does not change the file. Tensors that shared
    memory still share it. Parameters come back as plain tensors, an OrderedDict as a dict. `verify` compares
    each storage with its checksum, which reads the file once.
    Raises: CheckpointError naming the file and what is wrong with it; for a pickle that would run code, the
        name that it asks for.
    Source: torch/serialization.py; the values equal `torch.load(path, weights_only=True)`.
    """
    path = Path(path)
    data = map_file(path)
    start = data[:4].tobytes()
    if start == b"PK\x03\x04":
        return _read_zip(path, verify=verify)
    if start[:1] == b"\x80":
        return _read_legacy(path, data)
    raise CheckpointError(
        f"{path} must be a file of torch.save, found the first bytes {start!r}; check what kind of file it is, and "
        "save it again with torch.save or as safetensors."
    )


def write_torch_file(path: str | Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a state dict as the `.pth` that the book's readers open with torch.load; whole or not at all.

    Our own models are safetensors. This is the one place that writes a pickle, because the book's notebooks
    read nothing else; it holds tensors only, so `torch.load(path, weights_only=True)` reads it.
    Raises: CheckpointError when the disk is full or the folder may not be written.
    """
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    with new_file(path, error=CheckpointError) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as cause:  # torch's own words for a write that was cut short
            raise CheckpointError(
                f"{path} should have been written, got: {cause}; free some space."
            ) from cause
    return Path(path)


def _read_zip(path: Path, *, verify: bool) -> Any:
    archive = ZipMembers(path)
    pickles = [name for name in archive.members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path} must be a zip of torch.save with one data.pkl, found {len(pickles)}; check the path."
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.members:
        raise CheckpointError(
            f"{path} must hold values, found a TorchScript program; save its state_dict() with torch.save."
        )
    if f"{root}byteorder" in archive.members and archive.read(f"{root}byteorder", max_bytes=16) != b"little":
        raise CheckpointError(f"{path} must be little-endian; save it again on another machine.")
    storages: dict[str, Tensor] = {}

    def storage_bytes(key: str, n_bytes: int) -> Tensor:
        if key not in storages:
            storages[key] = _as_tensor(archive.mapped(f"{root}data/{key}", verify=verify))
        return storages[key][:n_bytes]

    pickle = archive.read(pickles[0], max_bytes=MAX_PICKLE_BYTES)
    return _reader(pickle, storage_bytes, path).read()


def _read_legacy(path: Path, data: NDArray[np.uint8]) -> Any:
    """Read the pickle twice: first to learn how long each storage is, then with the storages behind it."""
    head = data[:MAX_PICKLE_BYTES].tobytes()
    sizes: dict[str, int] = {}

    def unknown_bytes(key: str, n_bytes: int) -> Tensor:
        sizes[key] = max(n_bytes, sizes.get(key, 0))
        if n_bytes > len(data):
            raise first.wrong(f"claims {n_bytes:,} bytes for a storage, the file has {len(data):,}")
        return torch.empty(n_bytes, dtype=torch.uint8, device="meta")

    first = _reader(head, unknown_bytes, path)
    if first.read() != _LEGACY_MAGIC or first.read() != _LEGACY_PROTOCOL:
        raise CheckpointError(
            f"{path} must be a file of torch.save, found another pickle; save it again with torch.save."
        )
    system = first.read()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{path} must be little-endian; save it again on another machine.")
    value_at = first.at
    first.read()
    keys, at = first.read(), first.at
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, sizes)):
        raise first.wrong("lists other storages than it uses")
    places: dict[str, Tensor] = {}
    for key in keys:
        places[key] = _as_tensor(data[at + 8 : at + 8 + sizes[key]])  # 8 bytes: the number of elements, again
        at += 8 + sizes[key]
    if at != len(data):
        raise first.wrong(f"needs {at:,} bytes with its storages, the file has {len(data):,}")
    second = _reader(head, lambda key, n_bytes: places[key][:n_bytes], path)
    second.at = value_at
    return second.read()


def _reader(pickle: bytes, storage_bytes: Callable[[str, int], Tensor], path: Path) -> PickleReader:
    """A pickle reader that knows tensors; `storage_bytes` finds a storage's bytes by its key."""

    def load_storage(id_: Any) -> _Storage:
        match id_:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(n), *rest) if rest in ([], [None]):
                n_bytes = n * dtype.itemsize
                found = storage_bytes(key, min(max(n_bytes, 0), 1 << 48))
                if len(found) != n_bytes:
                    raise reader.wrong(f"claims {n_bytes:,} bytes for storage {key!r}, found {len(found):,}")
                return _Storage(found, dtype)
        raise reader.wrong("refers to something outside that is no storage")

    reader = PickleReader(
        pickle,
        allowed=_ALLOWED,
        load_persistent=load_storage,
        leaves=(Tensor, torch.dtype),
        where=str(path),
    )
    return reader


def _as_tensor(data: NDArray[np.uint8]) -> Tensor:
    """The mapped bytes as a tensor; copied when they lie where 8-byte numbers cannot be read in place."""
    tensor = torch.from_numpy(data)
    return tensor if tensor.data_ptr() % 8 == 0 else tensor.clone()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_ignored: Any
) -> Tensor:
    """The view of a storage that a tensor is; what follows, such as whether it wants gradients, is ignored."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor needs a storage")
    return _view(storage, storage.dtype, offset, shape, stride)


def _rebuild_tensor_of_dtype(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> Tensor:
    """The same for dtypes that have no storage class of their own; here the dtype follows two other values."""
    if not isinstance(storage, _Storage) or len(rest) < 3:
        raise ValueError("a tensor needs a storage and a dtype")
    return _view(storage, rest[2], offset, shape, stride)


def _view(
    storage: _Storage, dtype: torch.dtype, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor needs a dtype")
    for given in ((offset,), shape, stride):
        if not isinstance(given, tuple) or any(type(n) is not int or not 0 <= n < 1 << 48 for n in given):
            raise ValueError(f"offset, shape and stride must be small whole numbers, got {given!r:.100}")
    n_there, n_wanted = len(storage.data) // dtype.itemsize, math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride)) if n_wanted else offset - 1
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS or last >= n_there or n_wanted > n_there:
        raise ValueError(
            f"a tensor of shape {shape}, stride {stride}, offset {offset} does not lie in {n_there:,} numbers"
        )
    numbers = storage.data[: n_there * dtype.itemsize].view(dtype)
    return numbers.as_strided(shape, stride, offset) if n_wanted else numbers.new_empty(shape)


def _rebuild_parameter(data: Tensor, *_ignored: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter needs a tensor")
    return data


def _rebuild_dict() -> dict[Any, Any]:
    """An OrderedDict, empty: its items follow as orders of their own."""
    return {}


def _rebuild_size(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(sizes, tuple):
        raise ValueError("a size is a tuple of whole numbers")
    return sizes


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _rebuild_dict,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v3": _rebuild_tensor_of_dtype,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch Size": _rebuild_size,
}
_ALLOWED = {name: Allowed(name, call=function) for name, function in _FUNCTIONS.items()}
_ALLOWED |= {f"torch {name}": Allowed(name, value=dtype) for name, dtype in _DTYPES.items()}
_ALLOWED |= {
    f"torch {name}": Allowed(name, value=dtype)
    for dtype in (*_DTYPES.values(), *_DTYPES_WITHOUT_STORAGE)
    for name in [str(dtype).removeprefix("torch.")]
}
_ALLOWED |= {
    f"{module} UntypedStorage": Allowed("UntypedStorage", value=torch.uint8)
    for module in ("torch", "torch.storage")
}
