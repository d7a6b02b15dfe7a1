"""Format chapter 7's entries as Alpaca prompts, and encode them."""

from collections.abc import Mapping
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.prompt_templates import TEMPLATES

END_OF_TEXT_ID = 50256  # GPT-2's <|endoftext|>, with which the book pads


def format_input(entry: Mapping[str, str]) -> str:
    """Format an entry's instruction and input as an Alpaca prompt, without the `### Response:` line.

    An entry without an input needs no such key, where the book's function fails.
    """
    return TEMPLATES["alpaca"].request(as_instruction(entry))


def as_instruction(entry: Mapping[str, str]) -> Instruction:
    """Convert an entry of the book's JSON file; numbers become text, as in the book.

    Raises: DataError without an instruction, or for values other than text and numbers.
    """
    if "instruction" not in entry:
        raise DataError(f"an entry has no instruction; its keys are: {', '.join(entry) or 'none'}.")
    return Instruction(
        instruction=text_of(entry, "instruction"),
        input="" if entry.get("input") is None else text_of(entry, "input"),
        output=text_of(entry, "output"),
    )


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """The value of a key as text; empty without the key.

    Raises: DataError for anything but text or a number.
    """
    value = entry.get(key, "")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(
            f"an entry's {key} must be text, got {value!r:.100}; correct the entry or leave it out."
        )
    return str(value)


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode text with special tokens as ordinary text, for which a tiktoken encoding has a method of its own."""
    encode = getattr(tokenizer, "encode_ordinary", tokenizer.encode)
    ids: list[int] = encode(text)
    return ids
