"""Read the arrays of NumPy's `.npz` files as tensors, without pickle."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scratchlm.assets.archive_members import checked_zip
from scratchlm.core.errors import CheckpointError

MAX_INFLATED_BYTES = 56 << 20  # of all compressed arrays together: a small file can expand to many zeros


def read_npz(path: str | Path) -> dict[str, Tensor]:
    """The arrays of a file that `numpy.savez` or `numpy.savez_compressed` wrote, by name.

    Raises: CheckpointError naming the file and what is wrong with it: damaged, compressed arrays of more than 56 MiB,
        or arrays of anything but numbers; Python objects would need pickle.
    """
    path = Path(path)
    with checked_zip(path, are_files=False, error=CheckpointError) as archive:
        infos = archive.infolist()
    names = sorted(info.filename for info in infos)
    if not names or not all(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path} must be a zip file of .npy arrays, got {names!r:.200}; check the path."
        )
    n_unpacked = sum(info.file_size for info in infos if info.file_size != info.compress_size)
    if n_unpacked > MAX_INFLATED_BYTES:
        raise CheckpointError(
            f"{path} holds {n_unpacked:,} bytes of compressed arrays, at most {MAX_INFLATED_BYTES:,} are read; save "
            "them with numpy.savez, which does not compress."
        )
    try:
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")
            return {
                name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
                for name, array in arrays.items()
            }
    except Exception as cause:  # numpy raises many kinds of errors for a damaged file
        raise CheckpointError(
            f"{path} must hold undamaged arrays of numbers, but numpy reports: {str(cause)[:200]}; save it again."
        ) from cause
