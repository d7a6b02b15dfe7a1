"""Generate reading exercises on short passages: who, where, what, yes or no. The answer is in the input."""

from collections.abc import Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import N_DRAWS, Exercise, in_one_wording, with_article
from scratchlm.data.samples.word_lists import words
from scratchlm.data.samples.world import BOYS, COLOURS, GIRLS, WORLD


def _people(dice: Dice) -> tuple[str, str]:
    """A girl and a boy, in either order."""
    one, other = dice.shuffled([dice.pick(GIRLS), dice.pick(BOYS)])
    return one, other


def _a_thing(dice: Dice) -> str:
    return with_article(f"{dice.pick(COLOURS)} {dice.pick(words('things_to_have'))}")


def _walks(dice: Dice) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Two people who go to different places: the name and place asked about, and what both questions need."""
    for _ in range(N_DRAWS):
        names, places = _people(dice), dice.sample(words("places"), 2)
        passage = f"One day, {names[0]} went {places[0]}, and {names[1]} went {places[1]}."
        which = dice.below(2)
        name, place = names[which], places[which]
        yield (
            name,
            place,
            {"argument": f"{passage} {which}", "keep_out": f"{name} {place}", "passage": passage},
        )


def where_to(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia went to the farm, and Tom went up the hill. Where did Tom go? Tom went up the hill."""
    for name, place, about in _walks(dice):
        yield in_one_wording("where_to", dice, f"{name} went {place}.", name=name, **about)


def who_went(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia went to the farm, and Tom went up the hill. Who went up the hill? It was Tom."""
    for name, place, about in _walks(dice):
        yield in_one_wording("who_went", dice, f"It was {name}.", place=place, **about)


def what_wanted(dice: Dice) -> Iterator[Exercise]:
    """There was a shy girl named Mia. She wanted a red hat. What did Mia want? She wanted a red hat."""
    for _ in range(N_DRAWS):
        name, thing = dice.pick(GIRLS + BOYS), _a_thing(dice)
        he, kind = ("she", "girl") if name in GIRLS else ("he", "boy")
        answer = f"{he.capitalize()} wanted {thing}."
        passage = f"There was a {dice.pick(WORLD['traits'])} {kind} named {name}. {answer}"
        about = {"argument": passage, "keep_out": f"{name} {thing.split()[-1]}", "name": name, "he": he}
        yield in_one_wording("what_wanted", dice, answer, passage=passage, **about)


def what_colour(dice: Dice) -> Iterator[Exercise]:
    """One day, Tom had a blue cup, and Mia had a red hat. What colour was the cup? The cup was blue."""
    for _ in range(N_DRAWS):
        names, (one, two) = _people(dice), dice.sample(COLOURS, 2)
        first, second = dice.sample(words("things_to_have"), 2)
        passage = tidy(f"One day, {names[0]} had a {one} {first}, and {names[1]} had a {two} {second}.")
        thing, colour = dice.pick(((first, one), (second, two)))
        about = {"argument": f"{passage} {thing}", "keep_out": f"{colour} {thing}", "thing": thing}
        yield in_one_wording("what_colour", dice, f"The {thing} was {colour}.", passage=passage, **about)


def yes_or_no(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia had a red hat. Did Mia have a blue cup? Mia had a red hat, so no."""
    for _ in range(N_DRAWS):
        name, thing, other = dice.pick(GIRLS + BOYS), _a_thing(dice), _a_thing(dice)
        if other.split()[-1] == thing.split()[-1]:
            continue
        passage = f"One day, {name} had {thing}."
        claim, truth = (thing, "yes") if dice.chance(50) else (other, "no")
        about = {"argument": f"{passage} {claim}", "name": name, "thing": claim, "passage": passage}
        yield in_one_wording("yes_or_no", dice, f"{name} had {thing}, so {truth}.", **about)
