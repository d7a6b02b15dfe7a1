"""How an instruction becomes the text that a model reads: one template for training, generation and judging.

A template is fixed text around an entry's own. A model must be asked in the template it was trained with, so its
name is stored with the model. Chat templates also have role marks: where the tokenizer knows a mark as a special
token, its id is used, and then no text of a message can pass for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.data.instructions import Instruction
from scratchlm.tokenizers.special_tokens import split_on_special


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
