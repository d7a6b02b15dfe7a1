"""How an instruction becomes the text that a model reads: one template for training, generation and judging.

A template is four stretches of fixed text around the entry's own. A model must be asked in the template it
was trained with, so its name is stored with the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.data.instructions import Instruction


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

    def request(self, entry: Instruction) -> str:
        """Instruction and input, without the mark that calls for the answer; the book's `format_input`."""
        text = self.before_instruction + entry.instruction
        return text + self.before_input + entry.input if entry.input else text

    def prompt(self, entry: Instruction) -> str:
        """Everything up to the answer: what a model is given."""
        return self.request(entry) + self.before_answer

    def answer(self, entry: Instruction) -> str:
        """The reference answer as it follows the prompt."""
        return self.answer_lead + entry.output

    def full(self, entry: Instruction) -> str:
        """Prompt and answer: what a model is trained on, but for the end-of-text token."""
        return self.prompt(entry) + self.answer(entry)


TEMPLATES: dict[str, PromptTemplate] = {
    known.name: known
    for known in (
        # Stanford Alpaca's two prompts as the book writes them: one preamble whether there is an input or
        # not.
        PromptTemplate(
            name="alpaca",
            before_instruction=(
                "Below is an instruction that describes a task. "
                "Write a response that appropriately completes the request."
                "\n\n### Instruction:\n"
            ),
            before_input="\n\n### Input:\n",
            before_answer="\n\n### Response:\n",
        ),
        # A few tokens of frame instead of Alpaca's forty: a very small model's context is better spent on the
        # task.
        PromptTemplate(
            name="plain", before_instruction="Q: ", before_input="\n", before_answer="\nA:", answer_lead=" "
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
