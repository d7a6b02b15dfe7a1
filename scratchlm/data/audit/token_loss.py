"""Show which tokens carry loss, using the batches that training would read."""

from collections.abc import Sequence
from typing import Any

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import PromptTemplate

MAX_TOKENS = 600  # maximum number shown of one row


def loss_figures(
    entries: Sequence[Instruction],
    tokenizer: Tokenizer,
    *,
    template: PromptTemplate,
    context_length: int | None,
    n_shown: int,
) -> tuple[dict[str, Any], list[int]]:
    """The share of tokens that carry loss, the first rows token by token, and the lengths of all rows.

    The lengths are those of whole rows; the other statistics count what fits into the context.
    Raises: DataError, ConfigError as InstructionExamples does.
    """
    whole = InstructionExamples(entries, tokenizer, template=template)
    lengths = whole.lengths.tolist()
    figures: dict[str, Any] = {"template": template.name, "left_out": 0, "truncated": 0, "complaint": None}
    examples = whole
    if context_length is not None:
        try:
            examples = InstructionExamples(entries, tokenizer, template=template, max_length=context_length)
        except DataError as error:  # no answer fits: reported, not raised
            nothing = {"tokens": 0, "tokens_with_loss": 0, "rows": []}
            return figures | {"left_out": len(entries), "complaint": str(error)} | nothing, lengths
    n_tokens = n_loss = 0
    for index in range(len(examples)):
        targets = examples.batch([index]).targets
        n_tokens += targets.numel() + int(targets[0, -1] != IGNORE_INDEX)  # the last target is not an input
        n_loss += int((targets != IGNORE_INDEX).sum())
    return figures | {
        "left_out": examples.n_left_out,
        "truncated": examples.n_truncated,
        "tokens": n_tokens,
        "tokens_with_loss": n_loss,
        "rows": [loss_row(examples, index, tokenizer) for index in range(min(n_shown, len(examples)))],
    }, lengths


def loss_row(examples: InstructionExamples, index: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """One row token by token, for `--json`: a token carries loss when it is the target of the token before it.

    Only the first MAX_TOKENS tokens are listed; n_hidden counts the others.
    Shapes: inputs (1, T), targets (1, T) -> T + 1 tokens, of which the first is never a target; T when the row was
        cut at max_length.
    """
    batch = examples.batch([index])
    ids = batch.inputs[0].tolist()
    targets = batch.targets[0].tolist()
    carries = [False, *(target != IGNORE_INDEX for target in targets)]
    if carries[-1]:
        ids.append(targets[-1])  # the last target is the only token that is not an input
    return {
        "n_tokens": len(ids),
        "n_loss": sum(carries),
        "n_hidden": max(0, len(ids) - MAX_TOKENS),
        "tokens": _readable(ids, carries, tokenizer),
    }


def _readable(ids: Sequence[int], carries: Sequence[bool], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Decode tokens one by one; tokens that are parts of one character, such as an emoji, are joined."""
    tokens: list[dict[str, Any]] = []
    held: list[int] = []
    for number, token_id in enumerate(ids[:MAX_TOKENS]):
        held.append(token_id)
        text = tokenizer.decode(held)
        is_last = number + 1 == min(len(ids), MAX_TOKENS) or carries[number + 1] != carries[number]
        if "\ufffd" not in text or len(held) == 4 or is_last:
            tokens.append({"text": text, "loss": carries[number]})
            held = []
    return tokens
