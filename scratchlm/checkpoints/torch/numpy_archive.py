"""NumPy's `.npz` files: a zip of arrays, read without pickle and without trusting a size before it is checked."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.checkpoints.torch.zip_members import MAX_INFLATED_BYTES, ZipMembers
from scratchlm.core.errors import CheckpointError

MAX_HEADER_BYTES = 10_000  # NumPy's own limit; a header says dtype, order and shape
MAX_ITEM_BYTES = 1 << 20  # of one text
_MAGIC = b"\x93NUMPY"
_PLAIN_KINDS = "?bhilqBHILQefdFDSU"  # numbers and text of fixed width; no objects, no structures
_MAX_DIMENSIONS = 16


def read_npz(path: str | Path, *, verify: bool = True) -> dict[str, NDArray[Any]]:
    """The arrays of a file that `numpy.savez` or `numpy.savez_compressed` wrote, by name.

    Arrays stored as they are look into the mapped file, so a large file costs memory only as it is used;
    changing them does not change the file. Compressed ones are unpacked, 56 MiB of them at the most.
    `verify` compares each stored array with its checksum, which reads the file once.
    Raises: CheckpointError naming the file, the array and what is wrong with it: damaged, too large, or holding
        Python objects, which only pickle could read.
    Source: numpy/lib/format.py; the arrays equal `numpy.load(path)`.
    """
    archive = ZipMembers(Path(path))
    names = [name for name in archive.members if name.endswith(".npy")]
    if not names or len(names) != len(archive.members):
        raise CheckpointError(
            f"{path} must be a zip of .npy arrays, found {sorted(archive.members)!r:.200}; check the path."
        )
    arrays: dict[str, NDArray[Any]] = {}
    n_unpacked = 0
    for name in names:
        where = f"{path}: {name}"
        member = archive.members[name]
        if member.is_stored:
            data = archive.mapped(name, verify=verify)
        else:
            n_unpacked += member.size_bytes
            if n_unpacked > MAX_INFLATED_BYTES:
                raise CheckpointError(
                    f"{where} makes {n_unpacked:,} compressed bytes, {MAX_INFLATED_BYTES:,} are the most; save the "
                    "arrays with numpy.savez, which does not compress."
                )
            data = archive.unpacked(name)
        arrays[name.removesuffix(".npy")] = _array(data, where)
    return arrays


def _array(data: NDArray[np.uint8], where: str) -> NDArray[Any]:
    """The array that the bytes of a .npy file describe, as a view of them."""
    start, header = _header(data, where)
    match header:
        case {"descr": str(code), "fortran_order": bool(is_fortran), "shape": tuple(shape)} if (
            len(header) == 3
        ):
            pass
        case _:
            raise _wrong(where, "has a header without dtype, order and shape, or holds structures")
    try:
        dtype = np.dtype(code)
    except (TypeError, ValueError, SyntaxError, OverflowError) as cause:
        raise _wrong(where, f"has an unknown dtype {code!r:.60}") from cause
    if dtype.char not in _PLAIN_KINDS or not 0 < dtype.itemsize <= MAX_ITEM_BYTES:
        raise _wrong(where, f"holds {dtype!s:.60}, which is no plain number; objects would need pickle")
    if len(shape) > _MAX_DIMENSIONS or any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape):
        raise _wrong(where, f"has the impossible shape {shape!r:.200}")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes != len(data) - start:
        raise _wrong(where, f"needs {n_bytes:,} bytes for {shape} of {dtype}, holds {len(data) - start:,}")
    if n_bytes == 0:
        if math.prod(filter(None, shape)) >= 1 << 40:
            raise _wrong(where, f"has the impossible shape {shape!r:.200}")
        return np.empty(shape, dtype)
    array: NDArray[Any] = np.ndarray(
        shape, dtype, buffer=data, offset=start, order="F" if is_fortran else "C"
    )
    return array


def _header(data: NDArray[np.uint8], where: str) -> tuple[int, Any]:
    """Where the numbers begin, and the header's Python literal."""
    start = data[:12].tobytes()
    if start[:6] != _MAGIC or len(start) < 10 or start[6] not in (1, 2, 3) or start[7] != 0:
        raise _wrong(where, f"begins with {start!r}, not as a .npy of version 1 to 3")
    at = 10 if start[6] == 1 else 12
    n_header = int.from_bytes(start[8:at], "little")
    if n_header > MAX_HEADER_BYTES or at + n_header > len(data):
        raise _wrong(where, f"claims a header of {n_header:,} bytes")
    text = (
        data[at : at + n_header].tobytes().decode("utf-8" if start[6] == 3 else "latin-1", errors="replace")
    )
    try:
        return at + n_header, ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as cause:
        raise _wrong(where, f"has a header that is no literal: {text!r:.100}") from cause


def _wrong(where: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{where} must be an undamaged NumPy array, but it {problem}; save it again.")
