"""Build the exercises of a skill, before they are split into training and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scratchlm.data.samples.grammar import tidy


@dataclass(frozen=True)
class Exercise:
    """A question with its answer.

    `argument` is the subject of the question: exercises with the same argument differ only in wording. A fact may be
    tested in another wording than in training; an argument of a rule is either trained on or tested. `keep_out` is a
    word (or a pair) that may be held out of the skill's training; "" for none.
    """

    instruction: str
    input: str
    output: str
    argument: str
    is_fact: bool = False
    keep_out: str = ""


def asked(
    wordings: Sequence[str],
    answer: str,
    *,
    argument: str,
    is_fact: bool = False,
    keep_out: str = "",
    **slots: str,
) -> Iterator[Exercise]:
    """Yield the exercise in every wording; text after `||` is the input, and `{slot}` is filled in."""
    for wording in wordings:
        instruction, _, given = wording.format(**slots).partition("||")
        yield Exercise(instruction.strip(), given.strip(), answer, argument, is_fact, keep_out)


def with_article(noun: str) -> str:
    """The noun with `a` or `an`.

    Example:
        >>> with_article("owl")
        'an owl'
    """
    return tidy(f"a {noun}").replace("A", "a", 1)
