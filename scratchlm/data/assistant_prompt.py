"""Encode a question to an assistant, in one of our templates or the model's own, and find its stop tokens."""

import bisect
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from scratchlm.core.protocols import Tokenizer
from scratchlm.data.chat_template import ChatTemplate, Message
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import PromptTemplate, answer_end_id, encode_prompt, template
from scratchlm.tokenizers.special_tokens import end_ids


class AssistantPrompt(NamedTuple):
    """Token ids of a prompt, and how the answer begins and ends."""

    ids: list[int]
    stop_ids: tuple[int, ...]
    stop_texts: tuple[str, ...] = ()
    answer_lead: str = ""  # prefix of every answer, which is not part of it
    n_dropped: int = 0  # oldest exchanges that did not fit and are not in the prompt


def supports_conversations(task: Mapping[str, Any]) -> bool:
    """Whether an assistant has learnt conversations of several turns: here, or as its own template suggests."""
    return task.get("kind") != "instruction" or bool(task.get("exchanges", 1) != 1)


def chosen_template(task: Mapping[str, Any], name: str | None = None) -> PromptTemplate | ChatTemplate | None:
    """The named template; without a name, the one the model was tuned with, else the one in its files.

    Raises: ConfigError for an unknown name.
    """
    named = name or (task.get("template") if task.get("kind") == "instruction" else None)
    return ChatTemplate.of_task(task) if named is None else template(str(named))


def assistant_prompt(
    chosen: PromptTemplate | ChatTemplate,
    entry: Instruction,
    task: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    n_tokens: int | None = None,
) -> AssistantPrompt:
    """Encode the entry's history and request; the oldest exchanges are dropped as needed to fit n_tokens.

    An answer ends at the end-of-text ids of the task, and where the template ends a turn.
    Raises: as ChatTemplate does.
    """
    ends = end_ids(tokenizer, task)
    if isinstance(chosen, PromptTemplate):
        ids, n_dropped = fitting_ids(
            entry, lambda kept: encode_prompt(kept, chosen, tokenizer), n_tokens=n_tokens
        )
        mark = answer_end_id(chosen, tokenizer)
        stop_ids = ends if mark is None else tuple({*ends, mark})
        return AssistantPrompt(ids, stop_ids, answer_lead=chosen.answer_lead, n_dropped=n_dropped)
    ids, n_dropped = fitting_ids(
        entry, lambda kept: chosen.encode(_messages(kept), tokenizer), n_tokens=n_tokens
    )
    turn_end = chosen.turn_end(tokenizer)
    return AssistantPrompt(
        ids,
        ends if turn_end.id is None else tuple({*ends, turn_end.id}),
        () if turn_end.text is None else (turn_end.text,),
        n_dropped=n_dropped,
    )


def fitting_ids(
    entry: Instruction, encode: Callable[[Instruction], list[int]], *, n_tokens: int | None
) -> tuple[list[int], int]:
    """Ids of the entry, and the number of its oldest exchanges that were dropped to fit n_tokens, as few as possible.

    The last request is kept even when it is too long.
    """

    def without(n_oldest: int) -> list[int]:
        return encode(dataclasses.replace(entry, history=entry.history[n_oldest:]))

    whole = without(0)
    if n_tokens is None or len(whole) <= n_tokens or not entry.history:
        return whole, 0
    numbers = range(1, len(entry.history))
    n_dropped = 1 + bisect.bisect_left(numbers, True, key=lambda n: len(without(n)) <= n_tokens)
    return without(n_dropped), n_dropped


def _messages(entry: Instruction) -> list[Message]:
    turns = [("system", entry.system)] if entry.system else []
    for request, answer in entry.history:
        turns += [("user", request), ("assistant", answer)]
    turns.append(("user", f"{entry.instruction}\n{entry.input}" if entry.input else entry.instruction))
    return [{"role": role, "content": text} for role, text in turns]
