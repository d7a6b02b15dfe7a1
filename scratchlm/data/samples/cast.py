"""Choose the characters of a story, a hero and a friend, and the words for them.

Hero and friend never share a pronoun, so that `he` and `she` are unambiguous.
"""

from collections.abc import Set
from dataclasses import dataclass

from scratchlm.data.samples import world
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.world import WORLD

PRONOUNS = {  # he -> he, him, his, himself
    "he": ("he", "him", "his", "himself"),
    "she": ("she", "her", "her", "herself"),
}
ACTORS = tuple(animal for animal in world.ANIMALS.values() if animal.name != "bee")
SMALL = 12  # animals up to this size rank are called little
BIG = 19  # animals from this size rank on are called big


@dataclass(frozen=True)
class Character:
    """A character of a story; `animal` is None for a child."""

    name: str
    he: str
    trait: str
    food: str
    animal: world.Animal | None

    @property
    def kind(self) -> str:
        """`girl`, `boy` or the animal's name."""
        if self.animal:
            return self.animal.name
        return "boy" if self.he == "he" else "girl"

    def flags(self, prefix: str) -> set[str]:
        """Flags that story lines can require, e.g. `animal` and `noise`."""
        if self.animal is None:
            return {prefix + "child"}
        flags = {prefix + "animal"} | {prefix + skill for skill in self.animal.skills}
        return flags | {prefix + "noise"} if self.animal.sound else flags

    def slots(self, prefix: str, dice: Dice) -> dict[str, str]:
        """The character's words for story lines; slot names begin with `prefix`."""
        words = dict(zip(("he", "him", "his", "himself"), PRONOUNS[self.he], strict=True))
        words |= {
            "kind": self.kind,
            "trait": self.trait,
            "food": self.food,
            "size": dice.pick(("little", "young")),
        }
        words |= {"kinds": self.kind + "s", "home": "at home", "colour": "", "noise": ""}
        is_plural = self.food.endswith("s") and self.food != "grass"  # bread is, carrots are
        words |= {"isfood": "are" if is_plural else "is", "wasfood": "were" if is_plural else "was"}
        if self.animal:
            words |= {"kinds": self.animal.plural, "home": self.animal.home, "colour": self.animal.colour}
            words |= {"noise": self.animal.sound, "size": _size(self.animal, dice)}
        return {prefix + name: word for name, word in words.items()}


def make_hero(dice: Dice, *, must_be_animal: bool, barred: Set[str]) -> Character:
    """A child or an animal without a barred skill, with which the hero would need no help."""
    he = dice.pick(("he", "she"))
    able = [actor for actor in ACTORS if not barred & actor.skills and _can_be(actor, he)]
    return _character(he, dice.pick(able) if must_be_animal or dice.chance(55) else None, dice)


def make_friend(hero: Character, dice: Dice, *, wanted: Set[str]) -> Character:
    """A character of another kind and with the other pronoun, who has one of the `wanted` skills."""
    he = "she" if hero.he == "he" else "he"
    able = [
        actor
        for actor in ACTORS
        if actor != hero.animal and _can_be(actor, he) and (wanted <= {"animal"} or wanted & actor.skills)
    ]
    return _character(he, dice.pick(able) if wanted or dice.chance(70) else None, dice)


def animal_slots(animal: world.Animal, prefix: str) -> dict[str, str]:
    """The words for an animal that has no proper name."""
    words = {"food": animal.food, "home": animal.home, "colour": animal.colour, "noise": animal.sound}
    return {prefix + name: word for name, word in words.items()}


def _character(he: str, animal: world.Animal | None, dice: Dice) -> Character:
    if animal is None:
        name, food = (
            dice.pick(world.BOYS if he == "he" else world.GIRLS),
            dice.pick(WORLD["child_foods"]),
        )
    else:
        name = dice.pick(world.HIS_ANIMAL_NAMES if he == "he" else world.HER_ANIMAL_NAMES)
        food = animal.food
    return Character(name, he, dice.pick(WORLD["traits"]), food, animal)


def _can_be(animal: world.Animal, he: str) -> bool:
    """Whether the pronoun fits: cows and hens are female."""
    return he == "she" or animal.name not in ("cow", "hen")


def _size(animal: world.Animal, dice: Dice) -> str:
    if animal.size <= SMALL:
        return dice.pick(("little", "small", "young"))
    return dice.pick(("big", "large", "strong")) if animal.size >= BIG else dice.pick(("young", "friendly"))
