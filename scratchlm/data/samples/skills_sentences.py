"""Generate exercises on sentences: rewriting them, and finding or counting their words."""

from collections.abc import Callable, Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.skill import N_DRAWS, Exercise, in_one_wording
from scratchlm.data.samples.word_lists import LISTS, words
from scratchlm.data.samples.world import ANIMALS, BOYS, COLOURS, GIRLS


def _subject(dice: Dice) -> str:
    """A subject for a sentence."""
    if dice.chance(50):
        return dice.pick(GIRLS + BOYS)
    animal = dice.pick(list(ANIMALS))
    return f"The {dice.pick(COLOURS)} {dice.pick(words('things'))}" if dice.chance(25) else f"The {animal}"


def _statement(dice: Dice) -> tuple[str, str, str]:
    """Subject, verb (is or can) and complement of a short sentence."""
    who = _subject(dice)
    if who.count(" ") == 2:  # a thing
        return who, "is", dice.pick(("wet", "old", "big", "small", "cold"))
    if dice.chance(60):
        return who, "is", dice.pick(words("states"))
    return who, "can", dice.pick(words("abilities"))


def make_question(dice: Dice) -> Iterator[Exercise]:
    """The cow is wet. Is the cow wet?"""
    for _ in range(N_DRAWS):
        who, verb, what = _statement(dice)
        inside = "t" + who[1:] if who.startswith("The ") else who
        sentence, answer = f"{who} {verb} {what}.", f"{verb.capitalize()} {inside} {what}?"
        yield in_one_wording("make_question", dice, answer, argument=sentence, sentence=sentence)


def make_negative(dice: Dice) -> Iterator[Exercise]:
    """The cow is wet. The cow is not wet."""
    for _ in range(N_DRAWS):
        who, verb, what = _statement(dice)
        sentence, answer = f"{who} {verb} {what}.", f"{who} {'is not' if verb == 'is' else 'cannot'} {what}."
        yield in_one_wording("make_negative", dice, answer, argument=sentence, sentence=sentence)


def make_polite(dice: Dice) -> Iterator[Exercise]:
    """Open the door. Please open the door."""
    for _ in range(N_DRAWS):
        order = f"{dice.pick(words('orders_for'))} the {dice.pick(COLOURS)} {dice.pick(words('things'))}."
        if dice.chance(30):
            order = f"{dice.pick(words('orders'))}."
        answer = f"Please {order[0].lower()}{order[1:]}"
        yield in_one_wording("make_polite", dice, answer, argument=order, order=order)


def he_to_she(dice: Dice) -> Iterator[Exercise]:
    """He lost his hat. She lost her hat."""
    for _ in range(N_DRAWS):
        deed, thing = dice.pick(words("deeds")), dice.pick(words("things"))
        thing = f"{dice.pick(COLOURS)} {thing}" if dice.chance(40) else thing
        name, given, answer = "he_to_she", f"He {deed} his {thing}.", f"She {deed} her {thing}."
        if not dice.chance(50):
            name, given, answer = "he_to_she_back", answer, given
        yield in_one_wording(name, dice, answer, argument=given, sentence=given)


def capital_letter(dice: Dice) -> Iterator[Exercise]:
    """the dog ran home. The dog ran home."""
    for _ in range(N_DRAWS):
        sentence = _short_sentence(dice)
        lower = sentence[0].lower() + sentence[1:]
        yield in_one_wording("capital_letter", dice, sentence, argument=lower, sentence=lower)


def _short_sentence(dice: Dice) -> str:
    """A sentence of four to six words that starts with `The`, `He`, `She` or `My`."""
    animal, relative = dice.pick(list(ANIMALS)), dice.pick(("brother", "sister", "friend", "uncle"))
    start = dice.pick(("He", "She", f"The {animal}", f"My {relative}"))
    deed, colour = dice.pick(words("deeds")), dice.pick(COLOURS).replace("orange", "red")
    return f"{start} {deed} a {colour} {dice.pick(words('things'))}."


def first_word(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: the first word is moon."""
    for _ in range(N_DRAWS):
        yield _about_words("first_word", dice, lambda given: f"The first word is {given[0]}.")


def last_word(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: the last word is cow."""
    for _ in range(N_DRAWS):
        yield _about_words("last_word", dice, lambda given: f"The last word is {given[-1]}.")


def count_words(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: there are three words."""
    for _ in range(N_DRAWS):
        yield _about_words(
            "count_words", dice, lambda given: f"There are {LISTS['number'][len(given) - 1]} words.", n_max=5
        )


def _about_words(name: str, dice: Dice, answer: Callable[[list[str]], str], *, n_max: int = 4) -> Exercise:
    """An exercise on two to n_max words."""
    given = dice.sample(words("sortable"), 2 + dice.below(n_max - 1))
    return in_one_wording(name, dice, answer(given), argument=" ".join(given), given=" ".join(given))
