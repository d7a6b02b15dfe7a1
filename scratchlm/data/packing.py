"""Combine rows of different lengths into one tensor: by padding, or by packing several into a row."""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.core.errors import DataError


def pad_right(rows: Sequence[NDArray[Any]], *, value: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Pad every row to the length of the longest, or to `width`, and mark the real positions.

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


MAX_TRIES = 64  # numbers of rows to try one by one before the step grows
MAX_PLACED = 1_000_000  # maximum number of texts placed in all these attempts


def pack_rows(lengths: Sequence[int] | NDArray[Any], *, capacity: int) -> list[list[int]]:
    """Assign texts to rows of at most `capacity` tokens: few rows, filled about equally.

    First-fit-decreasing (longest first, each into the first row with room) finds how few rows are needed. The texts
    are then distributed over that many rows, longest first, each into the emptiest, so that all rows have about the
    same length; if they do not fit, over a few more. The number of rows with the least padding wins. The result
    depends only on the lengths.

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
            f"a packed row takes texts of at most {capacity} tokens, got one of {lengths[longest_first[0]]}; cut it."
        )
    sizes = [int(length) for length in lengths]
    rows, used = _first_fit(longest_first, sizes, capacity)
    n_fewest, n_positions = len(rows), len(rows) * max(used, default=0)
    n_rows, step = max(1, n_fewest), 1
    n_tries = min(MAX_TRIES, max(8, MAX_PLACED // max(1, len(sizes))))
    while n_rows <= min(2 * n_fewest, len(sizes)) and n_rows * sizes[longest_first[0]] < n_positions:
        even, used = _emptiest_first(longest_first, sizes, n_rows)
        if max(used) <= capacity and n_rows * max(used) < n_positions:
            rows, n_positions = even, n_rows * max(used)
        n_tries -= 1
        step = step if n_tries > 0 else 2 * step  # with very many possible numbers, only some are tried
        n_rows += step
    return sorted(sorted(row) for row in rows)


def pack(rows: Sequence[Sequence[NDArray[Any]]], *, value: int) -> tuple[Tensor, Tensor]:
    """Join the texts of each row, and number the text that every token belongs to.

    Shapes: R lists of texts -> ids (R, T), padded with `value`; number of the text (R, T), from 1 in each row, 0 at
        padding: the attention mask that keeps texts apart in the model.
    Example:
        >>> pack([[np.array([5, 6]), np.array([7])], [np.array([8])]], value=0)[1].tolist()
        [[1, 1, 2], [1, 0, 0]]
    """
    padded, _ = pad_right([np.concatenate(texts) for texts in rows], value=value)
    numbers = [np.repeat(np.arange(1, len(texts) + 1), [len(text) for text in texts]) for texts in rows]
    belongs_to, _ = pad_right(numbers, value=0)
    return padded, belongs_to.to(torch.int64)


def _first_fit(
    order: Sequence[int], sizes: Sequence[int], capacity: int
) -> tuple[list[list[int]], list[int]]:
    """Place each text in the first row with enough room, found by a tree with the maximum room per range."""
    n_leaves = 1 << max(0, len(order) - 1).bit_length()
    room = [capacity] * (2 * n_leaves)  # leaves are rows; a node has the maximum of its two children
    rows: list[list[int]] = []
    for i in order:
        node = 1
        while node < n_leaves:
            node = 2 * node if room[2 * node] >= sizes[i] else 2 * node + 1
        row = node - n_leaves
        if row == len(rows):
            rows.append([])
        rows[row].append(i)
        room[node] -= sizes[i]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows, [capacity - room[n_leaves + row] for row in range(len(rows))]


def _emptiest_first(
    order: Sequence[int], sizes: Sequence[int], n_rows: int
) -> tuple[list[list[int]], list[int]]:
    rows: list[list[int]] = [[] for _ in range(n_rows)]
    heap = [(0, row) for row in range(n_rows)]
    for i in order:
        n_used, row = heap[0]
        rows[row].append(i)
        heapq.heapreplace(heap, (n_used + sizes[i], row))
    used = [0] * n_rows
    for n_used, row in heap:
        used[row] = n_used
    return rows, used
