"""Several short texts in one row: no token of a batch is padding that the model computes for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.core.errors import DataError
from scratchlm.data.padding import pad_right


def pack_rows(lengths: Sequence[int] | NDArray[Any], *, capacity: int) -> list[list[int]]:
    """Which texts share a row of at most `capacity` tokens: few rows, about equally full.

    First-fit-decreasing says how few rows do: longest first, each into the first row that has room. The texts are
    then dealt out over as many rows, or up to twice as many, longest first, each to the emptiest, so that all rows end
    at about the same place; the number of rows with the least padding wins. Nothing but the lengths decides.

    Units: tokens.
    Raises: DataError for a text longer than the capacity.
    Source: Johnson 1973 (first-fit-decreasing); Graham 1969 (longest first to the emptiest).
    Example:
        >>> pack_rows([5, 2, 4, 3], capacity=8)
        [[0, 1], [2, 3]]
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: (-int(lengths[i]), i))
    if longest_first and lengths[longest_first[0]] > capacity:
        raise DataError(
            f"a packed row takes texts of at most {capacity} tokens, found one of {lengths[longest_first[0]]}; cut it."
        )
    rows, used = _first_fit(longest_first, lengths, capacity)
    n_fewest, n_positions = len(rows), len(rows) * max(used, default=0)
    for n_rows in range(max(1, n_fewest), min(2 * n_fewest, len(lengths)) + 1):
        even, used = _emptiest_first(longest_first, lengths, n_rows)
        if max(used) <= capacity and n_rows * max(used) < n_positions:
            rows, n_positions = even, n_rows * max(used)
    return sorted(sorted(row) for row in rows)


def pack(rows: Sequence[Sequence[NDArray[Any]]], *, value: int) -> tuple[Tensor, Tensor]:
    """The texts of each row one after the other, and which text every token belongs to.

    Shapes: R lists of texts -> ids (R, T), filled up with `value`; number of the text (R, T), from 1 in each row, 0
        at padding: the mask of whole numbers that keeps texts apart in the model.
    Example:
        >>> pack([[np.array([5, 6]), np.array([7])], [np.array([8])]], value=0)[1].tolist()
        [[1, 1, 2], [1, 0, 0]]
    """
    padded, _ = pad_right([np.concatenate(texts) for texts in rows], value=value)
    numbers = [np.repeat(np.arange(1, len(texts) + 1), [len(text) for text in texts]) for texts in rows]
    belongs_to, _ = pad_right(numbers, value=0)
    return padded, belongs_to.to(torch.int64)


def _first_fit(
    order: Sequence[int], lengths: Sequence[int] | NDArray[Any], capacity: int
) -> tuple[list[list[int]], list[int]]:
    rows: list[list[int]] = []
    used: list[int] = []
    for i in order:
        n_tokens = int(lengths[i])
        row = next((r for r, n in enumerate(used) if n + n_tokens <= capacity), len(rows))
        if row == len(rows):
            rows.append([])
            used.append(0)
        rows[row].append(i)
        used[row] += n_tokens
    return rows, used


def _emptiest_first(
    order: Sequence[int], lengths: Sequence[int] | NDArray[Any], n_rows: int
) -> tuple[list[list[int]], list[int]]:
    rows: list[list[int]] = [[] for _ in range(n_rows)]
    used = [0] * n_rows
    for i in order:
        row = used.index(min(used))
        rows[row].append(i)
        used[row] += int(lengths[i])
    return rows, used
