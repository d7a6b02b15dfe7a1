"""Generate exercises on facts of the story world: what its animals eat, say and are.

The answers are sentences that also occur in the stories, so pre-training on them helps.
"""

import functools
from collections.abc import Callable, Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, in_every_wording, with_article
from scratchlm.data.samples.world import ANIMALS, WORLD

_FACTS = {  # name of the fact -> the sentence that states it
    "food": "{a} eats {value}.",
    "home": "{a} lives {value}.",
    "sound": "{a} says {value}.",
    "young": "{a_value} is a young {one}.",
}
_CLAIMS = (("eats", "food"), ("lives", "home"), ("says", "sound"))  # a verb, and the fact that follows it


def animal_facts(_: Dice, *, name: str) -> Iterator[Exercise]:
    """One kind of fact, asked in both directions: about the animal, and about the value."""
    for animal in ANIMALS.values():
        if not (value := getattr(animal, name)):
            continue
        slots = {"a": with_article(animal.name), "many": animal.plural, "one": animal.name, "value": value}
        slots["a_value"] = with_article(value)
        answer = tidy(_FACTS[name].format(**slots))
        yield from in_every_wording(name, answer, argument=animal.name, is_fact=True, **slots)
        yield from in_every_wording(f"{name}_back", answer, argument=value, is_fact=True, **slots)


FACT_SKILLS: dict[str, Callable[[Dice], Iterator[Exercise]]] = {
    name: functools.partial(animal_facts, name=name) for name in _FACTS
}


def colour(_: Dice) -> Iterator[Exercise]:
    """The grass is green."""
    colours = WORLD["colour_facts"] | {
        with_article(animal.name): animal.colour for animal in ANIMALS.values()
    }
    for thing, value in colours.items():
        answer = tidy(f"{thing} is {value}.")
        yield from in_every_wording("colour", answer, argument=thing, is_fact=True, thing=thing)


def true_or_not(dice: Dice) -> Iterator[Exercise]:
    """Does a cow eat honey? A cow eats grass, so no: stating the fact first makes the conclusion easy."""
    for verb, fact in _CLAIMS:
        known = {animal.name: value for animal in ANIMALS.values() if (value := getattr(animal, fact))}
        for name, value in known.items():
            wrong = dice.pick([other for other in known.values() if other != value])
            for truth, claim in (("yes", value), ("no", wrong)):
                a = with_article(name)
                slots = {"a": a, "verb": verb, "base": verb.removesuffix("s"), "claim": claim}
                answer = tidy(f"{a} {verb} {value}, so {truth}.")
                argument = f"{name} {claim}"
                yield from in_every_wording("true_or_not", answer, argument=argument, is_fact=True, **slots)
