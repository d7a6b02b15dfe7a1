"""Skills on the story world: what its animals eat, say and are, as the stories tell it."""

from __future__ import annotations

from collections.abc import Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, asked
from scratchlm.data.samples.world import ANIMALS, COLOUR_FACTS, Animal

_FOOD = (
    "What does {a} eat?",
    "What does {a} like to eat?",
    "Name the food of {a}.",
    "What do {many} eat?",
    "What is the food of {many}?",
)
_EATER = (
    "Which animal eats {food}?",
    "Who likes to eat {food}?",
    "Who eats {food}?",
    "Name an animal that eats {food}.",
)
_HOME = (
    "Where does {a} live?",
    "Where do {many} live?",
    "Tell me where {a} lives.",
    "Where is the home of {a}?",
    "Where can I find {a}?",
)
_DWELLER = (
    "Which animal lives {home}?",
    "Who lives {home}?",
    "Name an animal that lives {home}.",
    "Whose home is {home}?",
)
_SOUND = (
    "What does {a} say?",
    "What sound does {a} make?",
    "What do {many} say?",
    "Which sound comes from {a}?",
    "How does {a} sound?",
)
_SPEAKER = (
    "Which animal says {sound}?",
    "Who says {sound}?",
    "Name the animal that says {sound}.",
    "I hear {sound}. Which animal is it?",
)
_YOUNG = (
    "What is a young {one} called?",
    "What do we call a young {one}?",
    "Name the young of {a}.",
    "What is the child of {a} called?",
)
_PARENT = (
    "What will {young} be one day?",
    "Which animal is the mother of {young}?",
    "Who is the mother of {young}?",
    "{Young} grows up. What is it then?",
)
_COLOUR = (
    "What colour is {thing}?",
    "Which colour has {thing}?",
    "Tell me the colour of {thing}.",
    "Name the colour.||{thing}",
)


def _a(noun: str) -> str:
    """The noun with its article."""
    return tidy(f"x a {noun}")[2:]


def _facts(there: tuple[str, ...], back: tuple[str, ...], answer_of: str) -> Iterator[Exercise]:
    """Both directions of one kind of fact: from the animal to the fact, and from the fact to the animal."""
    for animal in ANIMALS.values():
        value = getattr(animal, answer_of)
        if value:
            slots = {"a": _a(animal.name), "many": animal.plural, "one": animal.name, answer_of: value}
            if answer_of == "young":
                value = _a(value)
                slots |= {"young": value, "Young": value[0].upper() + value[1:]}
            yield from asked(there, value, argument=animal.name, is_fact=True, **slots)
            yield from asked(back, _a(animal.name), argument=f"{value}?", is_fact=True, **slots)


def food(_: Dice) -> Iterator[Exercise]:
    """What does a cow eat? Grass."""
    return _facts(_FOOD, _EATER, "food")


def home(_: Dice) -> Iterator[Exercise]:
    """Where does a bear live? In a cave."""
    return _facts(_HOME, _DWELLER, "home")


def sound(_: Dice) -> Iterator[Exercise]:
    """What does a cow say? Moo."""
    return _facts(_SOUND, _SPEAKER, "sound")


def young(_: Dice) -> Iterator[Exercise]:
    """What is a young cat called? A kitten."""
    return _facts(_YOUNG, _PARENT, "young")


def colour(_: Dice) -> Iterator[Exercise]:
    """What colour is the grass? Green."""
    colours = COLOUR_FACTS | {_a(animal.name): animal.colour for animal in ANIMALS.values()}
    for thing, answer in colours.items():
        yield from asked(_COLOUR, answer, argument=thing, is_fact=True, thing=thing)


def true_or_not(dice: Dice) -> Iterator[Exercise]:
    """Does a cow eat honey? No."""
    animals = list(ANIMALS.values())
    for animal in animals:
        others = [other for other in animals if other != animal]
        for truth, other in (("Yes.", animal), *(("No.", other) for other in dice.sample(others, 1))):
            for verb, base, value in _claims(other):
                if not value or not getattr(animal, _FIELD[base]):
                    continue
                a = _a(animal.name)
                wordings = (
                    f"Does {a} {base} {value}?",
                    f"Is it true that {a} {verb} {value}?",
                    f"Yes or no: {a} {verb} {value}.",
                    f"Is this true?||{a[0].upper()}{a[1:]} {verb} {value}.",
                )
                yield from asked(wordings, truth, argument=f"{animal.name} {base} {value}", is_fact=True)


_FIELD = {"eat": "food", "live": "home", "say": "sound"}


def _claims(animal: Animal) -> tuple[tuple[str, str, str], ...]:
    """What can be said of the animal: the verb, the verb after `does`, and the rest."""
    return (("eats", "eat", animal.food), ("lives", "live", animal.home), ("says", "say", animal.sound))
