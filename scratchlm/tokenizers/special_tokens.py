"""Tokens that stand for no text, such as the mark between two documents.

Their strings are harmless in ordinary text: whoever writes "<|endoftext|>" in a chat message gets the ids of
those thirteen characters. Only a caller who names a special token in `allowed_special` gets its id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from scratchlm.core.errors import TokenizerError

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>")  # what families call the mark between documents
UNKNOWN = "<|unk|>"


def end_ids(tokenizer: Tokenizer, task: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a text of a model, its own end first: what its files say, or else end-of-text."""
    end = tokenizer.end_of_text_id
    return tuple(task.get("stop_ids") or ([] if end is None else [end]))


def check_allowed(allowed_special: Collection[str], special_tokens: Mapping[str, int]) -> frozenset[str]:
    """The special tokens a caller allows; the one word "all" allows every one.

    Raises: TokenizerError for a name that is no special token of this tokenizer, which would never match.
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
            f"allowed_special must name special tokens of this tokenizer, got {unknown[0]!r}; known are: "
            f"{known}."
        )
    return frozenset(allowed_special)


def split_on_special(text: str, allowed: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Cut text into (part, is_special); where two special tokens could match at one place, the longer does.

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
            yield part, i % 2 == 1  # the group's matches stand at the odd places
