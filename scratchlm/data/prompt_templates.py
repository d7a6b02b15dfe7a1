"""Write an instruction as a prompt, in the template of Alpaca, Phi-3, ChatML or Llama 3: as text and as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.data.instruction_rows import Instruction
from scratchlm.tokenizers.special_tokens import split_on_special

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


class PromptPiece(NamedTuple):
    """A stretch of what a model reads: a role mark of the template, or text."""

    text: str
    is_mark: bool = False


class PromptPart(NamedTuple):
    """The pieces before an answer, and the answer's text."""

    prompt: list[PromptPiece]
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """The fixed text around an entry's instruction, input and output.

    Example:
        >>> entry = Instruction(instruction="What is the opposite?", input="hot", output="cold")
        >>> template("plain").full(entry)
        'Q: What is the opposite?\\nhot\\nA: cold'
    """

    name: str
    before_instruction: str
    before_input: str  # left out together with an empty input
    before_answer: str  # the end of every prompt: now it is the model's turn
    answer_lead: str = (
        ""  # what an answer begins with, so that its first token is one the model knows from text
    )
    answer_end: str = (
        ""  # the mark that ends an answer; without one, or unknown to the tokenizer: end-of-text
    )
    before_system: str = ""  # a system prompt, its frame and the instruction replace before_instruction
    after_system: str = "\n\n"
    next_instruction: str = "\n\n"  # stands for before_instruction in the later turns of a conversation
    marks: tuple[str, ...] = ()  # what in all these texts is a role mark

    def request(self, entry: Instruction) -> str:
        """Instruction and input, without the mark that calls for the answer; the book's `format_input`."""
        return self.prompt(entry).removesuffix(self.before_answer)

    def prompt(self, entry: Instruction) -> str:
        """Everything up to the answer, earlier turns included: what a model is given, role marks as text."""
        parts = list(self.parts(entry))
        texts = ["".join(piece.text for piece in part.prompt) for part in parts]
        earlier = (text + part.answer + self.answer_end for text, part in zip(texts[:-1], parts))
        return "".join(earlier) + texts[-1]

    def answer(self, entry: Instruction) -> str:
        """The reference answer as it follows the prompt."""
        return self.answer_lead + entry.output

    def full(self, entry: Instruction) -> str:
        """Prompt and answer: what a model is trained on, but for the end of the answer."""
        return self.prompt(entry) + self.answer(entry)

    def parts(self, entry: Instruction) -> Iterator[PromptPart]:
        """The exchanges of an entry as pieces, the last one's answer at the end."""
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
    known.name: known
    for known in (
        # Stanford Alpaca's two prompts as the book writes them: one preamble whether there is an input or
        # not. A system prompt replaces the preamble.
        PromptTemplate(
            name="alpaca",
            before_instruction=(
                "Below is an instruction that describes a task. "
                "Write a response that appropriately completes the request."
                "\n\n### Instruction:\n"
            ),
            before_input="\n\n### Input:\n",
            before_answer="\n\n### Response:\n",
            after_system="\n\n### Instruction:\n",
            next_instruction="\n\n### Instruction:\n",
        ),
        # A few tokens of frame instead of Alpaca's forty: a very small model's context is better spent on the
        # task.
        PromptTemplate(
            name="plain",
            before_instruction="Q: ",
            before_input="\n",
            before_answer="\nA:",
            answer_lead=" ",
            after_system="\nQ: ",
            next_instruction="\nQ: ",
        ),
        # Phi-3's as the book's exercise 7.1 writes it: no mark ends a message.
        PromptTemplate(
            name="phi3",
            before_instruction="<|user|>\n",
            before_input="\n",
            before_answer="\n<|assistant|>\n",
            before_system="<|system|>\n",
            after_system="\n<|user|>\n",
            next_instruction="\n<|user|>\n",
            marks=("<|user|>", "<|assistant|>", "<|system|>"),
        ),
        # OpenAI's chat markup, of which Qwen and many others have a form.
        PromptTemplate(
            name="chatml",
            before_instruction="<|im_start|>user\n",
            before_input="\n",
            before_answer="<|im_end|>\n<|im_start|>assistant\n",
            answer_end="<|im_end|>",
            before_system="<|im_start|>system\n",
            after_system="<|im_end|>\n<|im_start|>user\n",
            next_instruction="\n<|im_start|>user\n",
            marks=("<|im_start|>", "<|im_end|>"),
        ),
        # Meta's, from the model card of Llama 3.
        PromptTemplate(
            name="llama3",
            before_instruction="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
            before_input="\n",
            before_answer="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            answer_end="<|eot_id|>",
            before_system="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
            after_system="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
            next_instruction="<|start_header_id|>user<|end_header_id|>\n\n",
            marks=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
    )
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
