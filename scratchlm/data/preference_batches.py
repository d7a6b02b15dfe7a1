"""Build batches of preference pairs: the request with the chosen answer, and with the rejected one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.packing import pad_right
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import PromptTemplate, encode_answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceBatch(Batch):
    """P pairs for one forward pass: the chosen answers, then the rejected ones in the same order.

    Shapes: inputs, targets, attention_mask (2 P, T), targets IGNORE_INDEX outside the answers; reference (2 P, T):
        the reference model's log-probability of each target, 0 where there is none; None when it was not computed.
    Units: reference in nats; n_targets in pairs, since the loss is a mean over pairs.
    """

    reference: Tensor | None = None

    @property
    def n_targets(self) -> int:
        """The number of pairs."""
        return 0 if self.is_filler else len(self.inputs) // 2


class _Row(NamedTuple):
    """Request and answer: token ids, and as targets the next tokens that belong to the answer."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]

    @property
    def has_target(self) -> bool:
        return bool((self.targets != IGNORE_INDEX).any())


class PreferenceExamples:
    """Requests with two answers as token rows; the answers and their end-of-text carry loss.

    A pair is dropped when max_length leaves nothing of an answer, or makes both answers equal (n_left_out
    counts these pairs, n_truncated those that were cut). Text never becomes a special token.

    Shapes: batch of P pairs -> inputs, targets, attention_mask (2 P, T)
    Raises: ConfigError for a tokenizer without end-of-text or a max_length below 1; DataError for no pairs, or
        when all of them are left out.
    """

    def __init__(
        self,
        pairs: Sequence[Preference],
        tokenizer: Tokenizer,
        *,
        template: PromptTemplate,
        max_length: int | None = None,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1 token, got {max_length}; raise it.")
        if tokenizer.end_of_text_id is None:
            raise ConfigError(
                "preference tuning needs an end-of-text token to mark where an answer stops, and the tokenizer has "
                "none; train it with <|endoftext|>."
            )
        if not pairs:
            raise DataError("preference tuning needs pairs, got none; check the file and the split.")
        self.pad_id = tokenizer.end_of_text_id
        self.n_truncated = 0
        self._rows: list[tuple[_Row, _Row]] = []
        for pair in pairs:
            two = [
                encode_answer(pair.with_answer(answer), template, tokenizer)
                for answer in (pair.chosen, pair.rejected)
            ]
            chosen, rejected = (self._row(prompt, answer, max_length) for prompt, answer in two)
            longest = max(len(prompt) + len(answer) - 1 for prompt, answer in two)
            self.n_truncated += max_length is not None and longest > max_length
            is_same = np.array_equal(chosen.targets, rejected.targets)
            if chosen.has_target and rejected.has_target and not is_same:
                self._rows.append((chosen, rejected))
        self.n_left_out = len(pairs) - len(self._rows)
        self._report(len(pairs), max_length)
        self.lengths: NDArray[np.int64] = np.array([max(len(r.inputs) for r in two) for two in self._rows])
        self._reference: list[tuple[NDArray[np.float32], ...]] | None = None

    def _row(self, prompt: Sequence[int], answer: Sequence[int], max_length: int | None) -> _Row:
        ids = np.array([*prompt, *answer], dtype=np.int64)  # the answer's last id ends it
        targets = ids[1:].copy()
        targets[: max(0, len(prompt) - 1)] = IGNORE_INDEX  # the last prompt token already predicts the answer
        return _Row(ids[:-1][:max_length], targets[:max_length])

    def _report(self, n_pairs: int, max_length: int | None) -> None:
        if not self._rows:
            raise DataError(
                f"preference tuning needs answers that differ within max_length, got none in {n_pairs} pairs cut "
                f"to {max_length} tokens; raise max_length or use a shorter template."
            )
        if self.n_left_out:
            message = "left out %d of %d pairs: max_length %s leaves no answer, or the same of both"
            logger.warning(message, self.n_left_out, n_pairs, max_length)

    def __len__(self) -> int:
        return len(self._rows)

    def set_reference(self, log_probs: Sequence[tuple[NDArray[np.float32], ...]]) -> None:
        """Store the reference model's log-probabilities of each pair's targets, (chosen, rejected)."""
        for two, rows in zip(log_probs, self._rows, strict=True):
            assert [len(values) for values in two] == [len(row.targets) for row in rows]
        self._reference = list(log_probs)

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> PreferenceBatch:
        """Build a batch of the pairs with these indices, padded on the right to the longest row."""
        rows = [self._rows[i][side] for side in (0, 1) for i in indices]
        inputs, is_real = pad_right([row.inputs for row in rows], value=self.pad_id)  # (2 P, T)
        targets, _ = pad_right([row.targets for row in rows], value=IGNORE_INDEX)  # (2 P, T)
        reference = None
        if self._reference is not None:
            values = [self._reference[i][side] for side in (0, 1) for i in indices]
            padded = np.zeros(inputs.shape, dtype=np.float32)
            for row, own in zip(padded, values):
                row[: len(own)] = own
            reference = torch.from_numpy(padded)  # (2 P, T)
        return PreferenceBatch(inputs=inputs, targets=targets, attention_mask=is_real, reference=reference)
