"""Chapter 7's entries as text in Alpaca's form, and as ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scratchlm.core.errors import DataError
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import TEMPLATES

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


def format_input(entry: Mapping[str, str]) -> str:
    """An entry's instruction and input in Alpaca's form, without the mark that calls for the answer.

    An entry without an input needs no such key, where the book's fails.
    """
    return TEMPLATES["alpaca"].request(as_instruction(entry))


def as_instruction(entry: Mapping[str, str]) -> Instruction:
    """An entry of the book's JSON file as ours; a number is its digits, as in the book.

    Raises: DataError when it has no instruction, or something else than texts and numbers.
    """
    if "instruction" not in entry:
        raise DataError(f"an entry must have an instruction, found the keys {', '.join(entry) or 'none'}.")
    return Instruction(
        instruction=text_of(entry, "instruction"),
        input="" if entry.get("input") is None else text_of(entry, "input"),
        output=text_of(entry, "output"),
    )


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """What an entry holds under a key, a number as its digits; nothing when it lacks the key.

    Raises: DataError for anything but a text or a number.
    """
    value = entry.get(key, "")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(
            f"an entry's {key} must be text, found {value!r:.100}; mend the entry or leave it out."
        )
    return str(value)


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """The text's ids, a special token's text read as text: an encoding of tiktoken must be asked for that."""
    encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
    ids: list[int] = encode(text)
    return ids
