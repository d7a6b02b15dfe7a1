"""What a skill's exercises are made of, before anybody decides which of them train and which test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scratchlm.data.samples.grammar import tidy


@dataclass(frozen=True)
class Exercise:
    """One question with its answer.

    `argument` names what is asked about: exercises with the same one differ in wording only. Of a `fact`, a
    test may ask in new words what training has told; of a rule, an argument is either trained on or tested.
    `keep_out` names a word (or a pair) that may be kept out of the skill's training; empty for none.
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
    """The exercise in every wording; what follows `||` in a wording is the input, `{slot}` is filled in."""
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
