"""Generate reading exercises on short passages: who, where, what, yes or no. The answer is in the input."""

from __future__ import annotations

from collections.abc import Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, asked, with_article
from scratchlm.data.samples.word_lists import listed
from scratchlm.data.samples.world import BOYS, COLOURS, GIRLS, TRAITS

N_DRAWS = 420
_PLACES = (
    "to the garden", "to the forest", "to the meadow", "to the river", "up the hill", "to the farm", "to the market",
    "to the pond", "to the park", "to the lake", "to the old mill", "to the village", "to the school", "to the bridge",
)  # fmt: skip
_THINGS = listed("hat kite ball scarf drum bell book spoon basket blanket lantern cup boat ribbon coat map")


def _people(dice: Dice) -> tuple[str, str]:
    """A girl and a boy, in either order."""
    one, other = dice.shuffled([dice.pick(GIRLS), dice.pick(BOYS)])
    return one, other


def _a_thing(dice: Dice) -> str:
    return with_article(f"{dice.pick(COLOURS)} {dice.pick(_THINGS)}")


def where_to(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia went to the farm, and Tom went up the hill. Where did Tom go? Tom went up the hill."""
    wordings = ("Where did {name} go?||{passage}", "Tell me where {name} went.||{passage}")
    for _ in range(N_DRAWS):
        names, places = _people(dice), dice.sample(_PLACES, 2)
        passage = f"One day, {names[0]} went {places[0]}, and {names[1]} went {places[1]}."
        which = dice.below(2)
        answer = f"{names[which]} went {places[which]}."
        yield from asked(
            [dice.pick(wordings)],
            answer,
            argument=f"{passage} {which}",
            keep_out=f"{names[which]} {places[which]}",
            name=names[which],
            passage=passage,
        )


def who_went(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia went to the farm, and Tom went up the hill. Who went up the hill? It was Tom."""
    wordings = ("Who went {place}?||{passage}", "Which of them went {place}?||{passage}")
    for _ in range(N_DRAWS):
        names, places = _people(dice), dice.sample(_PLACES, 2)
        passage = f"One day, {names[0]} went {places[0]}, and {names[1]} went {places[1]}."
        which = dice.below(2)
        yield from asked(
            [dice.pick(wordings)],
            f"It was {names[which]}.",
            argument=f"{passage} {which}",
            keep_out=f"{names[which]} {places[which]}",
            place=places[which],
            passage=passage,
        )


def what_wanted(dice: Dice) -> Iterator[Exercise]:
    """There was a shy girl named Mia. She wanted a red hat. What did Mia want? She wanted a red hat."""
    wordings = ("What did {name} want?||{passage}", "What did {he} want?||{passage}")
    for _ in range(N_DRAWS):
        name, thing = dice.pick(GIRLS + BOYS), _a_thing(dice)
        he, kind = ("she", "girl") if name in GIRLS else ("he", "boy")
        answer = f"{he.capitalize()} wanted {thing}."
        passage = f"There was a {dice.pick(TRAITS)} {kind} named {name}. {answer}"
        yield from asked(
            [dice.pick(wordings)],
            answer,
            argument=passage,
            keep_out=f"{name} {thing.split()[-1]}",
            name=name,
            he=he,
            passage=passage,
        )


def what_colour(dice: Dice) -> Iterator[Exercise]:
    """One day, Tom had a blue cup, and Mia had a red hat. What colour was the cup? The cup was blue."""
    wordings = ("What colour was the {thing}?||{passage}", "Which colour did the {thing} have?||{passage}")
    for _ in range(N_DRAWS):
        names, (one, two), (thing, other) = _people(dice), dice.sample(COLOURS, 2), dice.sample(_THINGS, 2)
        passage = tidy(f"One day, {names[0]} had a {one} {thing}, and {names[1]} had a {two} {other}.")
        asked_thing, colour = dice.pick(((thing, one), (other, two)))
        yield from asked(
            [dice.pick(wordings)],
            f"The {asked_thing} was {colour}.",
            argument=f"{passage} {asked_thing}",
            keep_out=f"{colour} {asked_thing}",
            thing=asked_thing,
            passage=passage,
        )


def yes_or_no(dice: Dice) -> Iterator[Exercise]:
    """One day, Mia had a red hat. Did Mia have a blue cup? Mia had a red hat, so no."""
    wordings = ("Did {name} have {thing}?||{passage}", "Is it true that {name} had {thing}?||{passage}")
    for _ in range(N_DRAWS):
        name, thing = dice.pick(GIRLS + BOYS), _a_thing(dice)
        other = _a_thing(dice)
        if other.split()[-1] == thing.split()[-1]:
            continue
        passage = f"One day, {name} had {thing}."
        claim, truth = (thing, "yes") if dice.chance(50) else (other, "no")
        answer = f"{name} had {thing}, so {truth}."
        yield from asked(
            [dice.pick(wordings)],
            answer,
            argument=f"{passage} {claim}",
            name=name,
            thing=claim,
            passage=passage,
        )
