"""Cut a long sequence of token ids into windows: the model's inputs, and its targets shifted by one token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scratchlm.core.batch import Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.attention_mask import document_numbers


class TokenWindows:
    """Training examples for next-token prediction: each target is the token after its input.

    Windows are views of one array (in memory or memory-mapped); only batches are copied. They begin at 0, stride,
    2 * stride, ... while a whole window and one more token are left; the remaining tokens are dropped. With
    `document_start`, the id that every document begins with, batches have the attention mask that keeps documents
    apart.

    Shapes: windows[i] -> inputs (T,), targets (T,); windows.batch(indices) -> inputs (B, T), targets (B, T)
    Raises: ConfigError for a length or stride below 1; DataError for ids that are not a sequence of integers,
        or shorter than one window.
    Source: the book's GPTDatasetV1, chapter 2; stride None means windows that do not overlap.
    Example:
        >>> windows = TokenWindows([5, 6, 7, 8, 9], context_length=2, stride=1)
        >>> len(windows), [part.tolist() for part in windows[2]]
        (3, [[7, 8], [8, 9]])
    """

    def __init__(
        self,
        ids: ArrayLike,
        *,
        context_length: int,
        stride: int | None = None,
        document_start: int | None = None,
    ) -> None:
        if context_length < 1 or (stride is not None and stride < 1):
            raise ConfigError(
                f"windows need context_length and stride of at least 1, got {context_length} and {stride}."
            )
        array = np.asarray(ids)
        if array.size and (array.ndim != 1 or array.dtype.kind not in "iu"):
            raise DataError(
                f"windows need one row of token ids, got shape {array.shape} of {array.dtype}; flatten it "
                "first."
            )
        if array.size < context_length + 1:
            raise DataError(
                f"windows of context_length {context_length} need at least {context_length + 1} tokens, "
                f"got {array.size}; give more text or a smaller context_length."
            )
        self.ids = array
        self.context_length = context_length
        self.stride = context_length if stride is None else stride
        self.document_start = document_start
        rows = np.lib.stride_tricks.sliding_window_view(array, context_length + 1)
        self._rows: NDArray[Any] = rows[:: self.stride]  # (n, T + 1), a view: nothing is copied

    @classmethod
    def from_text(
        cls,
        text: str,
        tokenizer: Tokenizer,
        *,
        context_length: int,
        stride: int | None = None,
        allowed_special: Collection[str] = (),
    ) -> TokenWindows:
        """Cut a text's ids into windows; unlike in the book, special tokens must be allowed explicitly."""
        ids = tokenizer.encode(text, allowed_special=allowed_special)
        return cls(ids, context_length=context_length, stride=stride)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = torch.from_numpy(self._rows[index].astype(np.int64))  # (T + 1,); IndexError ends iteration
        return row[:-1], row[1:]

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the windows with these indices."""
        rows = torch.from_numpy(self._rows[np.asarray(indices)].astype(np.int64))  # (B, T + 1)
        inputs = rows[:, :-1].clone()
        mask = None if self.document_start is None else document_numbers(inputs, self.document_start)
        return Batch(inputs=inputs, targets=rows[:, 1:].clone(), attention_mask=mask)
