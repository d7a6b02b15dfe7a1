"""Build the exercises of a skill, before they are split into training and test."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scratchlm.core.toml_tables import package_table
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy

N_DRAWS = 420  # exercises drawn for a skill with too many arguments to enumerate
_WORDINGS: dict[str, list[str]] = package_table("scratchlm.data.samples", "sheets/skills.toml")


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


def in_every_wording(name: str, answer: str, /, **about: Any) -> Iterator[Exercise]:
    """Yield the exercise in every wording of that name; `about` as in `_exercise`."""
    for wording in _WORDINGS[name]:
        yield _exercise(wording, answer, **about)


def in_one_wording(name: str, dice: Dice, answer: str, /, **about: Any) -> Exercise:
    """The exercise in one random wording of that name; `about` as in `_exercise`."""
    return _exercise(dice.pick(_WORDINGS[name]), answer, **about)


def _exercise(
    wording: str, answer: str, /, *, argument: str, is_fact: bool = False, keep_out: str = "", **slots: str
) -> Exercise:
    """Fill in `{slot}`; text after `||` is the input."""
    instruction, _, given = wording.format(**slots).partition("||")
    return Exercise(instruction.strip(), given.strip(), answer, argument, is_fact, keep_out)


def with_article(noun: str) -> str:
    """The noun with `a` or `an`.

    Example:
        >>> with_article("owl")
        'an owl'
    """
    return tidy(f"a {noun}").replace("A", "a", 1)
