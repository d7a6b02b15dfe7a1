"""Rows of different lengths as one rectangle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def pad_right(rows: Sequence[NDArray[Any]], *, value: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Fill every row up to the longest, or up to `width`, and say which places are real.

    Shapes: rows of lengths t_1..t_B -> padded (B, T) of whole numbers, is_real (B, T) of booleans
    Example:
        >>> pad_right([np.array([1, 2, 3]), np.array([4])], value=0)[0].tolist()
        [[1, 2, 3], [4, 0, 0]]
    """
    lengths = np.array([len(row) for row in rows])
    n_columns = int(lengths.max()) if width is None else width
    is_real = np.arange(n_columns) < lengths[:, None]  # (B, T)
    padded = np.full((len(rows), n_columns), value, dtype=np.int64)
    padded[is_real] = np.concatenate(rows)
    return torch.from_numpy(padded), torch.from_numpy(is_real)
