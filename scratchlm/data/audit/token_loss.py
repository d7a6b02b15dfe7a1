"""Exactly which tokens carry loss: taken from the batches that training itself would read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import DataError
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import PromptTemplate

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

MOST_TOKENS = 600  # of one row, for people


@dataclass(frozen=True, kw_only=True, slots=True)
class LossToken:
    """One token as people read it, and whether the model is taught to write it."""

    text: str
    carries_loss: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LossRow:
    """One row as training sees it; of a very long one `tokens` holds the first part, without `n_hidden` tokens."""

    n_tokens: int
    n_loss: int
    n_hidden: int
    tokens: list[LossToken]


def loss_row(examples: InstructionExamples, index: int, tokenizer: Tokenizer) -> LossRow:
    """The row of that number, token by token: a token carries loss when it is the target of the one before it.

    Shapes: inputs (1, T), targets (1, T) -> T + 1 tokens, of which the first is never a target; T when the row
        was cut at max_length.
    """
    batch = examples.batch([index])
    ids = batch.inputs[0].tolist()
    targets = batch.targets[0].tolist()
    carries = [False, *(target != IGNORE_INDEX for target in targets)]
    if carries[-1]:
        ids.append(targets[-1])  # the last target is the one token that is no input
    return LossRow(
        n_tokens=len(ids),
        n_loss=sum(carries),
        n_hidden=max(0, len(ids) - MOST_TOKENS),
        tokens=_readable(ids, carries, tokenizer),
    )


def loss_figures(
    entries: Sequence[Instruction],
    tokenizer: Tokenizer,
    *,
    template: PromptTemplate,
    context_length: int | None,
    n_shown: int,
) -> tuple[dict[str, Any], list[int]]:
    """The share of tokens that carry loss, the first rows to look at, and the lengths of all rows.

    The lengths are those of whole rows; the figures count what is left within the context.
    Raises: DataError, ConfigError as InstructionExamples does.
    """
    whole = InstructionExamples(entries, tokenizer, template=template)
    figures: dict[str, Any] = {"template": template.name, "left_out": 0, "truncated": 0, "complaint": None}
    examples = whole
    if context_length is not None:
        try:
            examples = InstructionExamples(entries, tokenizer, template=template, max_length=context_length)
        except DataError as complaint:  # no answer fits: worth knowing, and no reason to stop
            return figures | {
                "left_out": len(entries),
                "complaint": str(complaint),
                "tokens": 0,
                "tokens_with_loss": 0,
                "rows": [],
            }, _row_lengths(whole)
    n_tokens = n_loss = 0
    for index in range(len(examples)):
        targets = examples.batch([index]).targets
        n_tokens += targets.numel() + int(targets[0, -1] != IGNORE_INDEX)  # the last target is no input
        n_loss += int((targets != IGNORE_INDEX).sum())
    rows = [loss_row(examples, index, tokenizer) for index in range(min(n_shown, len(examples)))]
    return figures | {
        "left_out": examples.n_left_out,
        "truncated": examples.n_truncated,
        "tokens": n_tokens,
        "tokens_with_loss": n_loss,
        "rows": [
            {
                "n_tokens": row.n_tokens,
                "n_loss": row.n_loss,
                "n_hidden": row.n_hidden,
                "tokens": [{"text": token.text, "loss": token.carries_loss} for token in row.tokens],
            }
            for row in rows
        ],
    }, _row_lengths(whole)


def _row_lengths(examples: InstructionExamples) -> list[int]:
    return [int(length) for length in np.asarray(examples.lengths)]


def _readable(ids: Sequence[int], carries: Sequence[bool], tokenizer: Tokenizer) -> list[LossToken]:
    """Tokens as text; neighbours that share one character, as emoji do, become one."""
    tokens: list[LossToken] = []
    held: list[int] = []
    for number, token_id in enumerate(ids[:MOST_TOKENS]):
        held.append(token_id)
        text = tokenizer.decode(held)
        is_last = number + 1 == min(len(ids), MOST_TOKENS) or carries[number + 1] != carries[number]
        if "\ufffd" not in text or len(held) == 4 or is_last:
            tokens.append(LossToken(text=text, carries_loss=carries[number]))
            held = []
    return tokens
