"""Instruction entries as batches: the model reads prompt and answer, and learns the answer and its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.instructions import Instruction
from scratchlm.data.padding import pad_right
from scratchlm.data.prompts import PromptTemplate

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

logger = logging.getLogger(__name__)


class InstructionExamples:
    """Prompt, answer and end-of-text as token rows; each target is the token after its input.

    Loss falls on the answer and its end-of-text; padding carries none. mask_instruction=False puts loss on
    the prompt too, as the book does outside its exercise 7.2; the rest is the same. max_length cuts longer
    rows at their end (n_truncated counts them); an entry that has no target left is left out (n_left_out
    counts them). Prompt and answer are encoded one after the other, so that training sees the very ids that
    generation starts from; a special token's string in an entry never becomes its id.

    Shapes: batch -> inputs (B, T), targets (B, T), attention_mask (B, T), True at real tokens
    Raises: ConfigError for a tokenizer without end-of-text or a max_length below 1; DataError for no entries,
        or when all of them are left out.
    Source: the book's InstructionDataset and custom_collate_fn, chapter 7.
    """

    def __init__(
        self,
        entries: Sequence[Instruction],
        tokenizer: Tokenizer,
        *,
        template: PromptTemplate,
        mask_instruction: bool = True,
        max_length: int | None = None,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1 token, got {max_length}.")
        if tokenizer.end_of_text_id is None:
            raise ConfigError(
                "instruction tuning needs an end-of-text token to learn where answers stop, found none in "
                "the tokenizer; train it with <|endoftext|>."
            )
        if not entries:
            raise DataError("instruction tuning needs entries, found none; check the file and the split.")
        self.pad_id = tokenizer.end_of_text_id
        self.template = template
        self.n_truncated = 0
        self._inputs: list[NDArray[np.int64]] = []
        self._targets: list[NDArray[np.int64]] = []
        for entry in entries:
            prompt = tokenizer.encode(template.prompt(entry))
            ids = np.array([*prompt, *tokenizer.encode(template.answer(entry)), self.pad_id], dtype=np.int64)
            inputs, targets = ids[:-1][:max_length], ids[1:].copy()
            if mask_instruction:
                targets[: len(prompt) - 1] = IGNORE_INDEX  # the last prompt token already predicts the answer
            self.n_truncated += len(inputs) < len(ids) - 1
            targets = targets[:max_length]
            if (targets != IGNORE_INDEX).any():
                self._inputs.append(inputs)
                self._targets.append(targets)
        self.n_left_out = len(entries) - len(self._inputs)
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in self._inputs], dtype=np.int64)
        self._report(len(entries), max_length)

    def _report(self, n_entries: int, max_length: int | None) -> None:
        if not self._inputs:
            raise DataError(
                f"instruction tuning needs answers within max_length, found all {n_entries} prompts to fill "
                f"{max_length} tokens alone; raise max_length or use a shorter template."
            )
        if self.n_left_out:
            logger.warning(
                "left out %d of %d entries whose prompt alone fills max_length %s",
                self.n_left_out,
                n_entries,
                max_length,
            )
        if self.n_truncated:
            logger.info("cut %d of %d entries to %s tokens", self.n_truncated, n_entries, max_length)

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """The entries of those numbers as one batch, padded on the right to the longest."""
        inputs, is_real = pad_right([self._inputs[i] for i in indices], value=self.pad_id)  # (B, T)
        targets, _ = pad_right([self._targets[i] for i in indices], value=IGNORE_INDEX)  # (B, T)
        return Batch(inputs=inputs, targets=targets, attention_mask=is_real)
