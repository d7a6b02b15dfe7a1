"""Write an instruction as a prompt, in the template of Alpaca, Phi-3, ChatML or Llama 3: as text and as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.toml_tables import package_table
from scratchlm.data.instruction_rows import Instruction
from scratchlm.tokenizers.special_tokens import split_on_special

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


class PromptPiece(NamedTuple):
    """A part of a prompt: a role mark of the template, or text."""

    text: str
    is_mark: bool = False


class PromptPart(NamedTuple):
    """The pieces before an answer, and the answer's text."""

    prompt: list[PromptPiece]
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """The fixed text around an entry's instruction, input and output.

    A prompt must use the template of the model's training, so the template's name is stored with the model. A
    role mark that the tokenizer has as a special token is encoded as its id; the text of a message never is.

    Example:
        >>> entry = Instruction(instruction="What is the opposite?", input="hot", output="cold")
        >>> template("plain").full(entry)
        'Q: What is the opposite?\\nhot\\nA: cold'
    """

    name: str
    before_instruction: str
    before_input: str  # left out when the input is empty
    before_answer: str  # the end of every prompt, after which the model writes
    answer_lead: str = ""  # prefix of every answer, so that the answer's first token is a common one
    answer_end: str = ""  # mark that ends an answer; end-of-text if empty or unknown to the tokenizer
    before_system: str = ""  # with a system prompt, this and after_system replace before_instruction
    after_system: str = "\n\n"
    next_instruction: str = "\n\n"  # replaces before_instruction in later turns of a conversation
    marks: tuple[str, ...] = ()  # the role marks in these texts

    def request(self, entry: Instruction) -> str:
        """The prompt without before_answer; the book's `format_input`."""
        return self.prompt(entry).removesuffix(self.before_answer)

    def prompt(self, entry: Instruction) -> str:
        """Everything up to the answer, including earlier turns, with role marks as text."""
        parts = list(self.parts(entry))
        texts = ["".join(piece.text for piece in part.prompt) for part in parts]
        earlier = (text + part.answer + self.answer_end for text, part in zip(texts[:-1], parts))
        return "".join(earlier) + texts[-1]

    def answer(self, entry: Instruction) -> str:
        """The expected answer, as it follows the prompt."""
        return self.answer_lead + entry.output

    def full(self, entry: Instruction) -> str:
        """Prompt and answer, without the token that ends the answer."""
        return self.prompt(entry) + self.answer(entry)

    def parts(self, entry: Instruction) -> Iterator[PromptPart]:
        """Yield the exchanges of an entry as pieces; the last is the entry's own."""
        opening = self._opening(entry.system)
        for request, answer in entry.history:
            yield PromptPart(
                [*opening, PromptPiece(request), *self._frame(self.before_answer)], self.answer_lead + answer
            )
            opening = self._frame(self.next_instruction)
        given = [*self._frame(self.before_input), PromptPiece(entry.input)] if entry.input else []
        prompt = [*opening, PromptPiece(entry.instruction), *given, *self._frame(self.before_answer)]
        yield PromptPart(prompt, self.answer(entry))

    def _opening(self, system: str) -> list[PromptPiece]:
        if not system:
            return self._frame(self.before_instruction)
        return [*self._frame(self.before_system), PromptPiece(system), *self._frame(self.after_system)]

    def _frame(self, text: str) -> list[PromptPiece]:
        return [PromptPiece(part, is_mark) for part, is_mark in split_on_special(text, self.marks)]


TEMPLATES: dict[str, PromptTemplate] = {
    name: from_dict(PromptTemplate, {"name": name, **texts}, where=f"template {name}")
    for name, texts in package_table("scratchlm.data", "prompt_templates.toml").items()
}


def template(name: str) -> PromptTemplate:
    """The template of that name.

    Raises: ConfigError for a name that is not in TEMPLATES.
    """
    if name not in TEMPLATES:
        raise ConfigError(
            f"template must be one of {', '.join(TEMPLATES)}, got {name!r}; {nearest(name, TEMPLATES)}"
        )
    return TEMPLATES[name]


def encode_pieces(pieces: Iterable[PromptPiece], tokenizer: Tokenizer) -> list[int]:
    """Encode pieces: marks become special tokens; text never does, even if it spells a mark.

    A mark that the tokenizer lacks is encoded as text, together with the text around it.
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
    """The id that ends an answer: the template's mark, or end-of-text if the tokenizer lacks it."""
    return tokenizer.special_tokens.get(chosen.answer_end, tokenizer.end_of_text_id)


def encode_exchanges(
    entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield ids of each exchange: the prompt, and the answer with the id that ends it.

    Prompt and answer are encoded separately, so that training uses exactly the ids that generation starts from.
    """
    end = answer_end_id(chosen, tokenizer)
    for prompt, answer in chosen.parts(entry):
        yield encode_pieces(prompt, tokenizer), [*tokenizer.encode(answer), *([] if end is None else [end])]


def encode_answer(
    entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
    """Ids of everything before the entry's own answer, including earlier exchanges, and ids of the answer."""
    *earlier, (last, own) = encode_exchanges(entry, chosen, tokenizer)
    return [id_ for prompt, answer in earlier for id_ in (*prompt, *answer)] + last, own


def encode_prompt(entry: Instruction, chosen: PromptTemplate, tokenizer: Tokenizer) -> list[int]:
    """The ids that generation starts from: everything up to the entry's own answer."""
    return encode_answer(entry, chosen, tokenizer)[0]
