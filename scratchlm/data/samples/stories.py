"""Generate stories in simple English from plots.

A plot is a sheet in `plots/`: beats in order, each with many wordings. A story chooses a plot, characters, weather
and places, and a wording of each beat. A hash assigns every sentence to training or validation, and a story
uses only sentences of its side. So no sentence of the validation stories occurs in training, and a low
validation loss shows grammar, not memorization.
"""

import hashlib
from functools import cache
from typing import Literal

from scratchlm.core.errors import ConfigError
from scratchlm.data.samples import world
from scratchlm.data.samples.cast import ACTORS, animal_slots, make_friend, make_hero
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import Line, Sheet, bind, expand, load_sheet, tidy
from scratchlm.data.samples.overlap import sentences
from scratchlm.data.samples.world import WORLD

Split = Literal["train", "val"]

DEFAULT_N = {"train": 4000, "val": 200}  # number of stories; about 3 MB and 0.15 MB
PLOTS: tuple[str, ...] = tuple(WORLD["plots"])
VAL_SHARE = 20  # percent of the sentences; a lower value would leave too few wordings for validation
MIN_WORDS, MAX_WORDS = 80, 250
_TRIES = 40  # attempts for one beat before the story is started again


def sample_stories(*, seed: int = 0, n: int | None = None, split: Split = "train") -> list[str]:
    """Stories of 80 to 250 words, with empty lines between paragraphs; see `SAMPLE_NOTICE`.

    The same seed gives the same stories everywhere. Training and validation stories of any two seeds share no
    sentence. Without `n` there are 4,000 for training (about 3 MB) and 200 for validation.
    Raises: ConfigError for a negative n or an unknown split.
    Example:
        >>> sample_stories(seed=1, n=2) == sample_stories(seed=1, n=2)
        True
    """
    if split not in DEFAULT_N:
        raise ConfigError(f"split must be 'train' or 'val', got {split!r}; choose one of them.")
    n = DEFAULT_N[split] if n is None else n
    if n < 0:
        raise ConfigError(f"n must be 0 or more stories, got {n}; choose a number such as 2000.")
    dice = Dice(seed, "stories", split)
    return [_story(split, dice) for _ in range(n)]


def side_of(sentence: str) -> Split:
    """The side of a sentence, which depends only on its hash."""
    bucket = int.from_bytes(hashlib.blake2b(sentence.encode(), digest_size=4).digest(), "big") % 100
    return "val" if bucket < VAL_SHARE else "train"


def _story(split: Split, dice: Dice) -> str:
    while True:
        story = _try_story(split, dice)
        if story is not None and MIN_WORDS <= len(story.split()) <= MAX_WORDS:
            return story


def _try_story(split: Split, dice: Dice) -> str | None:
    """One story, or None when a beat has no wording for this side."""
    sheet = _plot(dice.pick(PLOTS))
    setting = _setting(sheet, dice)
    if setting is None:
        return None
    slots, flags = setting
    used: set[str] = set()
    paragraphs = []
    for beats in sheet.settings["order"].split("|"):
        words = []
        for beat in beats.split():
            if beat.endswith("?") and not dice.chance(60):
                continue
            text = _tell(sheet.beats[beat.rstrip("?")], slots, flags, split, used, dice)
            if text is not None:
                words.append(text)
            elif not beat.endswith("?"):
                return None
        paragraphs.append(" ".join(words))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _tell(
    lines: list[Line], slots: dict[str, str], flags: set[str], split: Split, used: set[str], dice: Dice
) -> str | None:
    """A wording of a beat whose sentences all belong to the split and are new in this story."""
    fitting = [line for line in lines if line.fits(flags)]
    for _ in range(_TRIES):
        text = tidy(expand(dice.pick(fitting).pattern, slots, dice))
        parts = sentences(text)
        if all(side_of(part) == split and part not in used for part in parts):
            used.update(parts)
            return text
    return None


def _setting(sheet: Sheet, dice: Dice) -> tuple[dict[str, str], set[str]] | None:
    """Weather, characters, places and things of a story as slots and flags; None for a contradiction."""
    weather = dice.pick(sheet.settings["weather"].split())
    wanted = set(sheet.settings.get("friend", "").split())
    hero = make_hero(dice, must_be_animal=sheet.settings.get("hero") == "animal", barred=wanted)
    friend = make_friend(hero, dice, wanted=wanted)
    slots = {
        "H": hero.name,
        "F": friend.name,
        "trait2": dice.pick([trait for trait in WORLD["virtues"] if trait != hero.trait]),
    }
    slots |= {
        "day": dice.pick(WORLD["days"][weather]),
        "day2": "that day",
        "weather_word": WORLD["weather"][weather],
    }
    slots |= hero.slots("", dice) | friend.slots("f", dice)
    flags = {weather} | hero.flags("") | friend.flags("f")
    others = [animal for animal in ACTORS if animal not in (hero.animal, friend.animal)]
    mother = dice.pick(
        [animal for animal in others if animal.young and animal.young != "tadpole" and animal.sound]
    )
    noisy = dice.pick([animal for animal in others if animal.sound])
    slots |= animal_slots(mother, "y") | {
        "young": mother.young,
        "ykind": mother.name,
        "yhome_name": mother.home_name,
    }
    slots |= animal_slots(noisy, "a") | {"a_kind": noisy.name}
    other = dice.pick(others)
    slots |= animal_slots(other, "o") | {"other": other.name}
    bind(sheet.lets, slots, dice)
    if hero.animal and (
        set(slots.get("skill", "").split()) & hero.animal.skills or slots.get("owner") == hero.kind
    ):
        return None  # the hero would learn a skill, or ask for a thing, that it already has
    owner = world.ANIMALS.get(slots.get("owner", ""), other)
    slots |= animal_slots(owner, "o")
    if owner.sound:
        flags.add("onoise")
    return slots, flags


@cache
def _plot(name: str) -> Sheet:
    """A plot together with the beats and choices that all plots share; its own have precedence."""
    shared, own = load_sheet("plots/common.txt"), load_sheet(f"plots/{name}.txt")
    return Sheet(settings=own.settings, lets=shared.lets + own.lets, beats=shared.beats | own.beats)
