"""Put texts with labels into batches for a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.packing import pad_right

logger = logging.getLogger(__name__)


class ClassificationExamples:
    """Token rows with class numbers, padded on the right to the longest row of a batch.

    max_length cuts longer rows to their first tokens, as in the book; is_truncated marks these rows, n_truncated counts
    them. pad_to gives every batch the same width. hides_padding=False gives batches
    without an attention mask, so that the model reads padding as text, as in the book. Texts whose class
    number is ignore_index carry no loss.

    Shapes: batch -> inputs (B, T), targets (B,) in range(C), attention_mask (B, T), True at real tokens, or None
    Raises: DataError for no rows, an empty row, or fewer than two classes, a label outside range(C);
        ConfigError for a max_length below 1 or a pad_to below the longest row.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        pad_id: int,
        classes: Sequence[str],
        max_length: int | None = None,
        pad_to: int | None = None,
        hides_padding: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        self.classes = tuple(classes)
        _check_rows(ids, labels, self.classes)
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1 token, got {max_length}.")
        self._rows = [np.asarray(row, dtype=np.int64)[:max_length] for row in ids]
        self._labels = np.asarray(labels, dtype=np.int64)
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in self._rows], dtype=np.int64)
        self.is_truncated = [len(row) < len(whole) for row, whole in zip(self._rows, ids)]
        self.n_truncated = sum(self.is_truncated)
        self.pad_id = pad_id
        self.pad_to = pad_to
        self.hides_padding = hides_padding
        self.ignore_index = ignore_index
        if pad_to is not None and pad_to < self.lengths.max():
            raise ConfigError(
                f"pad_to must be at least the longest text, got {pad_to} for {self.lengths.max()} tokens; raise it "
                "or lower max_length."
            )
        if self.n_truncated:
            logger.info("cut %d of %d texts to %d tokens", self.n_truncated, len(self), max_length)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        classes: Sequence[str] | None = None,
        pad_to: int | None = None,
        hides_padding: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> ClassificationExamples:
        """Encode texts and number their labels; padding is end-of-text, as in the book, or 0.

        classes: their order, so that validation uses the one of training; None sorts them by name.
        Raises: DataError also for an empty text, or a label that is not among the classes.
        """
        names = tuple(sorted(set(labels)) if classes is None else classes)
        numbers = {name: number for number, name in enumerate(names)}
        for index, (text, label) in enumerate(zip(texts, labels)):
            if not text.strip():
                raise DataError(f"text {index} is empty: {text!r}; remove it.")
            if label not in numbers:
                raise DataError(
                    f"text {index} has the label {label!r}, which is not among {', '.join(map(repr, names))}; "
                    "correct it or train with it."
                )
        return cls(
            [tokenizer.encode(text) for text in texts],
            [numbers[label] for label in labels],
            pad_id=tokenizer.end_of_text_id or 0,
            max_length=max_length,
            classes=names,
            pad_to=pad_to,
            hides_padding=hides_padding,
            ignore_index=ignore_index,
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def strata(self) -> NDArray[np.int64]:
        """The class of each text; used to keep classes mixed in batches of similar length."""
        return self._labels

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the texts with these indices."""
        rows = [self._rows[index] for index in indices]
        inputs, is_real = pad_right(rows, value=self.pad_id, width=self.pad_to)  # (B, T)
        targets = torch.from_numpy(self._labels[np.asarray(indices)])  # (B,)
        targets = targets.masked_fill(targets == self.ignore_index, IGNORE_INDEX)
        return Batch(inputs=inputs, targets=targets, attention_mask=is_real if self.hides_padding else None)

    def row(self, index: int) -> NDArray[np.int64]:
        """The ids of one text as the model reads it, including unmasked padding."""
        row = self._rows[index]
        if self.hides_padding or self.pad_to is None:
            return row
        return np.pad(row, (0, self.pad_to - len(row)), constant_values=self.pad_id)


def _check_rows(ids: Sequence[Sequence[int]], labels: Sequence[int], classes: Sequence[str]) -> None:
    if len(ids) != len(labels):
        raise DataError(f"each text needs one label, got {len(ids)} texts and {len(labels)} labels.")
    if not ids:
        raise DataError("there are no texts for the classifier; check the file and the split.")
    if len(set(classes)) < 2:
        raise DataError(
            f"a classifier needs at least 2 classes, got {', '.join(map(repr, classes)) or 'none'}; add "
            "texts with other labels."
        )
    for index, (row, label) in enumerate(zip(ids, labels)):
        if len(row) == 0:
            raise DataError(f"text {index} has no tokens; remove it.")
        if not 0 <= label < len(classes):
            raise DataError(
                f"text {index} has class {label}, but classes are numbered 0 to {len(classes) - 1}."
            )
