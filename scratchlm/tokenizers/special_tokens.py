"""Special tokens, such as the one between two documents, and the check which of them a caller allows.

In ordinary text their strings are only characters: "<|endoftext|>" in a chat message is encoded as those thirteen
characters. The special id appears only when the caller names the token in `allowed_special`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scratchlm.core.errors import TokenizerError

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>")  # names of the token between documents, by family
UNKNOWN = "<|unk|>"


def end_ids(tokenizer: Tokenizer, task: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a generated text: the task's `stop_ids`, or else end-of-text."""
    end = tokenizer.end_of_text_id
    return tuple(task.get("stop_ids") or ([] if end is None else [end]))


def start_tokens(tokenizer: Tokenizer) -> list[int]:
    """The begin-of-text token of this vocabulary, if it has one."""
    start: int | None = getattr(tokenizer, "begin_of_text_id", None)
    return [] if start is None else [start]


def encode_from_start(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids of a prompt, with the begin-of-text token if the tokenizer has one."""
    return start_tokens(tokenizer) + tokenizer.encode(prompt)


def check_allowed(allowed_special: Collection[str], special_tokens: Mapping[str, int]) -> frozenset[str]:
    """The set of special tokens that a caller allows; "all" allows every one.

    Raises: TokenizerError for a name that is not a special token of this tokenizer and so could never match.
    """
    if allowed_special == "all":
        return frozenset(special_tokens)
    if isinstance(allowed_special, str):
        raise TokenizerError(
            f"allowed_special must be a collection of special tokens, got the string {allowed_special!r}; "
            f'write {{{allowed_special!r}}}, or "all".'
        )
    unknown = sorted(set(allowed_special) - set(special_tokens))
    if unknown:
        known = ", ".join(map(repr, special_tokens)) or "none"
        raise TokenizerError(
            f"{unknown[0]!r} in allowed_special is not a special token of this tokenizer; its special tokens are: "
            f"{known}."
        )
    return frozenset(allowed_special)


def split_on_special(text: str, allowed: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Split text into (part, is_special); of two special tokens that match at one place, the longer is used.

    Example:
        >>> list(split_on_special("one<|endoftext|>two", {"<|endoftext|>"}))
        [('one', False), ('<|endoftext|>', True), ('two', False)]
    """
    if not allowed:
        yield text, False
        return
    longest_first = sorted(allowed, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    for i, part in enumerate(parts):
        if part:
            yield part, i % 2 == 1  # the matches are at the odd positions
