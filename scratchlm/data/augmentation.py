"""Augment instruction data: add copies of entries with reworded instructions."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

from scratchlm.core.errors import ConfigError
from scratchlm.data.instruction_rows import Instruction

# {task} is the task with a lower-case first letter, {Task} the unchanged one. REQUESTS suit tasks that begin
# with a verb.
REQUESTS = (
    "Please {task}",
    "Kindly {task}",
    "I would like you to {task}",
    "Your task is to {task}",
    "Here is what to do: {task}",
    "Help me with this: {task}",
    "Now {task}",
    "I need you to {task}",
)
QUESTIONS = (
    "Question: {Task}",
    "Here is a question. {Task}",
    "Please answer: {Task}",
    "Tell me: {Task}",
    "I have a question. {Task}",
    "Answer this: {Task}",
    "Do you know? {Task}",
    "A question for you: {Task}",
)
VERBS = frozenset(
    # One string: a list would take a line for each word.
    """
    add analyze answer arrange calculate change choose classify combine compare complete compose compute construct
    convert correct count create define describe determine edit evaluate explain expand fill find fix form formulate
    generate give identify insert join list make match modify name order paraphrase pick provide punctuate put rank
    rearrange remove rephrase replace reverse rewrite say select simplify solve sort spell state suggest summarize
    tell transform translate turn use write
    """.split()  # noqa: SIM905
)


def augment(entries: Sequence[Instruction], n_copies: int, *, seed: int) -> list[Instruction]:
    """Return the entries, and n_copies of each with another beginning of the instruction and the same answer.

    A hash of the entry's texts and the seed chooses the beginnings; the copies of one entry all differ.
    Raises: ConfigError for a negative number of copies, or more than there are beginnings.
    Example:
        >>> hot = Instruction(instruction="Name the opposite.", input="hot", output="cold")
        >>> [copy.instruction for copy in augment([hot], 1, seed=1)]
        ['Name the opposite.', 'I need you to name the opposite.']
    """
    max_copies = min(len(REQUESTS), len(QUESTIONS))
    if not 0 <= n_copies <= max_copies:
        raise ConfigError(f"augment must be between 0 and {max_copies} copies of each entry, got {n_copies}.")
    copies = [
        dataclasses.replace(entry, instruction=text)
        for entry in entries
        for text in _in_other_words(entry, seed)[:n_copies]
    ]
    return [*entries, *copies]


def _in_other_words(entry: Instruction, seed: int) -> list[str]:
    """The instruction with every beginning, in an order that depends on the entry's hash."""
    text = entry.instruction
    first_word = text.split(maxsplit=1)[0].strip(".,:;!?").lower() if text.split() else ""
    leads = REQUESTS if first_word in VERBS else QUESTIONS

    def rank(lead: str) -> bytes:
        return hashlib.sha256(json.dumps([seed, lead, *entry.key]).encode()).digest()

    small = text[:1].lower() + text[1:]
    return [lead.format(task=small, Task=text) for lead in sorted(leads, key=rank)]
