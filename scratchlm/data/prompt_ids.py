"""A template's pieces as token ids: role marks become single ids, and no message can forge one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from scratchlm.data.instructions import Instruction
from scratchlm.data.prompts import PromptPiece, PromptTemplate

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


def encode_pieces(pieces: Iterable[PromptPiece], tokenizer: Tokenizer) -> list[int]:
    """Ids of the pieces. A mark that the tokenizer lacks is ordinary text, and joins the text beside it.

    Text never becomes a special token, whatever it says.
    """
    ids: list[int] = []
    text = ""
    for piece in pieces:
        mark_id = tokenizer.special_tokens.get(piece.text) if piece.is_mark else None
        if mark_id is None:
            text += piece.text
            continue
        ids += [*tokenizer.encode(text), mark_id]
        text = ""
    return ids + tokenizer.encode(text)


def answer_end_id(chosen: PromptTemplate, tokenizer: Tokenizer) -> int | None:
    """The id that ends an answer: the template's mark, or end-of-text where the tokenizer lacks it."""
    return tokenizer.special_tokens.get(chosen.answer_end, tokenizer.end_of_text_id)


def encode_exchanges(
    entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    """Ids of each exchange: what stands before the answer, and the answer with the id that ends it.

    Prompt and answer are encoded one after the other, so that training sees the very ids that generation starts from.
    """
    end = answer_end_id(chosen, tokenizer)
    for prompt, answer in chosen.parts(entry):
        yield encode_pieces(prompt, tokenizer), [*tokenizer.encode(answer), *([] if end is None else [end])]


def encode_answer(
    entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
    """Ids of all that stands before the entry's own answer, earlier exchanges included, and those of the answer."""
    *earlier, (last, own) = encode_exchanges(entry, chosen, tokenizer)
    return [id_ for prompt, answer in earlier for id_ in (*prompt, *answer)] + last, own


def encode_prompt(entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer) -> list[int]:
    """What generation starts from: all ids up to the entry's own answer."""
    return encode_answer(entry, chosen, tokenizer)[0]
