"""Put instruction entries into batches with loss on the answers."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.packing import pack, pack_rows, pad_right
from scratchlm.data.prompt_templates import PromptTemplate, answer_end_id, encode_exchanges

logger = logging.getLogger(__name__)

# In a packed row, attention scores between different entries are computed and then masked. Measured with
# 4 layers of width 256: 2,800 tokens per CPU second in rows of 470 tokens, 3,200 in rows of 240.
PACKED_ROW_TOKENS = 256


class InstructionExamples:
    """Prompt, answer and end-of-answer as token rows; each target is the token after its input.

    Answers and the token that ends them (the template's mark or end-of-text) carry loss; padding carries none.
    last_turn_only=True: only the last answer of a conversation carries loss. mask_instruction=False: prompts carry
    loss too, as in the book outside its exercise 7.2. max_length cuts longer rows at their end (n_truncated counts
    them); entries without a remaining target are left out (n_left_out counts them). A special token's string in an
    entry never becomes its id.

    packing=True joins the entries of a batch into rows of 256 tokens, or three times the longest entry, up to
    max_length; the attention mask keeps them apart, so each is computed as if alone.

    Shapes: batch -> inputs (B, T), targets (B, T), attention_mask (B, T), True at real tokens; packed: rows of
        several entries, and the mask holds the number of the entry within its row, 0 at padding
    Raises: ConfigError for a tokenizer without end-of-text or a max_length below 1; DataError for no entries, or
        when all are left out.
    Source: the book's InstructionDataset and custom_collate_fn, chapter 7.
    """

    def __init__(
        self,
        entries: Sequence[Instruction],
        tokenizer: Tokenizer,
        *,
        template: PromptTemplate,
        mask_instruction: bool = True,
        last_turn_only: bool = False,
        max_length: int | None = None,
        packing: bool = False,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1 token, got {max_length}.")
        end = answer_end_id(template, tokenizer)
        if end is None:
            raise ConfigError(
                "instruction tuning needs an end-of-text token to learn where answers stop, and the tokenizer has "
                "none; train it with <|endoftext|>."
            )
        if not entries:
            raise DataError("instruction tuning needs entries, got none; check the file and the split.")
        self.pad_id = end if tokenizer.end_of_text_id is None else tokenizer.end_of_text_id
        self.template = template
        self.packing = packing
        self.n_truncated = 0
        self._inputs: list[NDArray[np.int64]] = []
        self._targets: list[NDArray[np.int64]] = []
        for entry in entries:
            row, carries_loss = _row(
                list(encode_exchanges(entry, template, tokenizer)),
                mask_instruction=mask_instruction,
                last_turn_only=last_turn_only,
            )
            targets = np.where(carries_loss, row, IGNORE_INDEX)[1:][:max_length]
            self.n_truncated += len(targets) < len(row) - 1
            if (targets != IGNORE_INDEX).any():
                self._inputs.append(row[:-1][:max_length])
                self._targets.append(targets)
        self.n_left_out = len(entries) - len(self._inputs)
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in self._inputs], dtype=np.int64)
        self._report(len(entries), max_length)
        longest = int(self.lengths.max())
        wanted = max(PACKED_ROW_TOKENS, 3 * longest)
        self._row_length = wanted if max_length is None else min(max_length, wanted)

    def _report(self, n_entries: int, max_length: int | None) -> None:
        if not self._inputs:
            raise DataError(
                f"instruction tuning needs answers within max_length, but each of the {n_entries} prompts fills "
                f"{max_length} tokens alone; raise max_length or use a shorter template."
            )
        if self.n_left_out:
            message = "left out %d of %d entries whose prompt alone fills max_length %s"
            logger.warning(message, self.n_left_out, n_entries, max_length)
        if self.n_truncated:
            logger.info("cut %d of %d entries to %s tokens", self.n_truncated, n_entries, max_length)

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """Build a batch of the entries with these indices, padded on the right to the longest row."""
        rows = self._rows(indices)
        if self.packing:
            inputs, mask = pack([[self._inputs[i] for i in row] for row in rows], value=self.pad_id)
            targets, _ = pack([[self._targets[i] for i in row] for row in rows], value=IGNORE_INDEX)
        else:
            inputs, mask = pad_right([self._inputs[i] for i in indices], value=self.pad_id)  # (B, T)
            targets, _ = pad_right([self._targets[i] for i in indices], value=IGNORE_INDEX)  # (B, T)
        return Batch(inputs=inputs, targets=targets, attention_mask=mask)

    def padding_share(self, batches: Iterable[Sequence[int] | NDArray[Any]]) -> float:
        """The share of padding among all positions of these batches, from 0 to 1."""
        n_real = n_positions = 0
        for indices in batches:
            row_lengths = [int(self.lengths[row].sum()) for row in self._rows(indices)]
            n_real += sum(row_lengths)
            n_positions += len(row_lengths) * max(row_lengths)
        return 1 - n_real / n_positions

    def _rows(self, indices: Sequence[int] | NDArray[Any]) -> list[list[int]]:
        """Indices of the entries in each row."""
        numbers = [int(i) for i in indices]
        if not self.packing:
            return [[i] for i in numbers]
        packed = pack_rows(self.lengths[numbers], capacity=self._row_length)
        return [[numbers[place] for place in row] for row in packed]


def _row(
    exchanges: Sequence[tuple[list[int], list[int]]], *, mask_instruction: bool, last_turn_only: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """All ids of an entry, and which of them carry loss."""
    ids: list[int] = []
    carries_loss: list[bool] = []
    for number, (prompt, answer) in enumerate(exchanges, start=1):
        is_trained = number == len(exchanges) or not last_turn_only
        ids += [*prompt, *answer]
        carries_loss += [is_trained and not mask_instruction] * len(prompt) + [is_trained] * len(answer)
    return np.array(ids, dtype=np.int64), np.array(carries_loss)
