"""Generate exercises on facts of the story world: what its animals eat, say and are.

The answers are sentences that also occur in the stories, so pre-training on them helps.
"""

from __future__ import annotations

from collections.abc import Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, asked, with_article
from scratchlm.data.samples.world import ANIMALS, COLOUR_FACTS


def food(_: Dice) -> Iterator[Exercise]:
    """A cow eats grass."""
    there = (
        "What does {a} eat?",
        "What does {a} like to eat?",
        "What is the food of {a}?",
        "What do {many} eat?",
    )
    back = ("Which animal eats {value}?", "Who likes to eat {value}?", "Who eats {value}?")
    return _facts(there, back, "food", "{a} eats {value}.")


def home(_: Dice) -> Iterator[Exercise]:
    """A bear lives in a cave."""
    there = (
        "Where does {a} live?",
        "Where do {many} live?",
        "Where is the home of {a}?",
        "Tell me where {a} lives.",
    )
    back = ("Which animal lives {value}?", "Who lives {value}?", "Who has a home {value}?")
    return _facts(there, back, "home", "{a} lives {value}.")


def sound(_: Dice) -> Iterator[Exercise]:
    """A cow says moo."""
    there = ("What does {a} say?", "What sound does {a} make?", "What do {many} say?", "How does {a} sound?")
    back = ("Which animal says {value}?", "Who says {value}?", "I hear {value}. Who is it?")
    return _facts(there, back, "sound", "{a} says {value}.")


def young(_: Dice) -> Iterator[Exercise]:
    """A kitten is a young cat."""
    there = ("What is a young {one} called?", "What do we call a young {one}?", "What is the child of {a}?")
    back = ("What is {a_value}?", "Who is the mother of {a_value}?", "What kind of animal is {a_value}?")
    return _facts(there, back, "young", "{a_value} is a young {one}.")


def colour(_: Dice) -> Iterator[Exercise]:
    """The grass is green."""
    wordings = (
        "What colour is {thing}?",
        "Tell me the colour of {thing}.",
        "Which colour does {thing} have?",
    )
    colours = COLOUR_FACTS | {with_article(animal.name): animal.colour for animal in ANIMALS.values()}
    for thing, value in colours.items():
        yield from asked(wordings, tidy(f"{thing} is {value}."), argument=thing, is_fact=True, thing=thing)


def true_or_not(dice: Dice) -> Iterator[Exercise]:
    """Does a cow eat honey? A cow eats grass, so no: stating the fact first makes the conclusion easy."""
    wordings = (
        "Does {a} {base} {claim}?",
        "Is it true that {a} {verb} {claim}?",
        "Yes or no: {a} {verb} {claim}.",
    )
    for verb, fact in _CLAIMS:
        known = {animal.name: value for animal in ANIMALS.values() if (value := getattr(animal, fact))}
        for name, value in known.items():
            wrong = dice.pick([other for other in known.values() if other != value])
            for truth, claim in (("yes", value), ("no", wrong)):
                a = with_article(name)
                slots = {"a": a, "verb": verb, "base": verb.removesuffix("s"), "claim": claim}
                answer = tidy(f"{a} {verb} {value}, so {truth}.")
                yield from asked(wordings, answer, argument=f"{name} {claim}", is_fact=True, **slots)


_CLAIMS = (("eats", "food"), ("lives", "home"), ("says", "sound"))  # a verb, and the fact that follows it


def _facts(there: tuple[str, ...], back: tuple[str, ...], name: str, sentence: str) -> Iterator[Exercise]:
    """One kind of fact, asked in both directions: about the animal, and about the value."""
    for animal in ANIMALS.values():
        value = getattr(animal, name)
        if not value:
            continue
        slots = {"a": with_article(animal.name), "many": animal.plural, "one": animal.name, "value": value}
        slots["a_value"] = with_article(value)
        answer = tidy(sentence.format(**slots))
        yield from asked(there, answer, argument=animal.name, is_fact=True, **slots)
        yield from asked(back, answer, argument=value, is_fact=True, **slots)
