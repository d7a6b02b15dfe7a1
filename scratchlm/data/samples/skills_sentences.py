"""Generate exercises on sentences: rewriting them, and finding or counting their words."""

from __future__ import annotations

from collections.abc import Iterator

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.skill import Exercise, asked
from scratchlm.data.samples.word_lists import LISTS, SORTABLE, listed
from scratchlm.data.samples.world import ANIMALS, BOYS, COLOURS, GIRLS

N_DRAWS = 420
_STATES = listed(
    "happy sad wet cold hungry tired big small old young hot brave kind shy clever quiet sleepy busy"
)
_ABILITIES = listed("swim sing dance fly jump read climb run cook whistle skate write")
_THINGS = listed(
    "hat kite ball scarf drum bell book spoon basket blanket lantern cup boat ribbon coat map box"
)
_DEEDS = listed("lost found wanted liked saw took had made bought forgot opened painted")
_ORDERS = (
    "Open the door", "Close the window", "Wash your hands", "Help me", "Help your brother", "Come with me", "Come home",
    "Wait for me", "Wait at the bridge", "Look at the sky", "Tell me a story", "Sit next to me", "Feed the hens",
    "Give me some water",
)  # fmt: skip
_ORDERS_FOR = ("Bring me", "Give me", "Show me", "Find", "Take", "Look at", "Paint", "Give her", "Bring him")


def _subject(dice: Dice) -> str:
    """A subject for a sentence."""
    if dice.chance(50):
        return dice.pick(GIRLS + BOYS)
    animal = dice.pick(list(ANIMALS))
    return f"The {dice.pick(COLOURS)} {dice.pick(_THINGS)}" if dice.chance(25) else f"The {animal}"


def _statement(dice: Dice) -> tuple[str, str, str]:
    """Subject, verb (is or can) and complement of a short sentence."""
    who = _subject(dice)
    is_a_thing = who.count(" ") == 2
    if is_a_thing:
        return who, "is", dice.pick(("wet", "old", "big", "small", "cold"))
    return (who, "is", dice.pick(_STATES)) if dice.chance(60) else (who, "can", dice.pick(_ABILITIES))


def _inside(who: str) -> str:
    """The subject as written inside a sentence."""
    return "t" + who[1:] if who.startswith("The ") else who


def make_question(dice: Dice) -> Iterator[Exercise]:
    """The cow is wet. Is the cow wet?"""
    wordings = (
        "Make it a question.||{sentence}",
        "Turn this sentence into a question.||{sentence}",
        "Ask if this is so.||{sentence}",
    )
    for _ in range(N_DRAWS):
        who, verb, what = _statement(dice)
        answer = f"{verb.capitalize()} {_inside(who)} {what}?"
        sentence = f"{who} {verb} {what}."
        yield from asked([dice.pick(wordings)], answer, argument=sentence, sentence=sentence)


def make_negative(dice: Dice) -> Iterator[Exercise]:
    """The cow is wet. The cow is not wet."""
    wordings = (
        "Make it negative.||{sentence}",
        "Say that this is not so.||{sentence}",
        "Add the word not.||{sentence}",
    )
    for _ in range(N_DRAWS):
        who, verb, what = _statement(dice)
        sentence = f"{who} {verb} {what}."
        not_so = "is not" if verb == "is" else "cannot"
        yield from asked(
            [dice.pick(wordings)], f"{who} {not_so} {what}.", argument=sentence, sentence=sentence
        )


def make_polite(dice: Dice) -> Iterator[Exercise]:
    """Open the door. Please open the door."""
    wordings = (
        "Make it polite.||{order}",
        "Say it politely.||{order}",
        "Write this with the word please.||{order}",
    )
    for _ in range(N_DRAWS):
        order = f"{dice.pick(_ORDERS_FOR)} the {dice.pick(COLOURS)} {dice.pick(_THINGS)}."
        if dice.chance(30):
            order = f"{dice.pick(_ORDERS)}."
        answer = f"Please {order[0].lower()}{order[1:]}"
        yield from asked([dice.pick(wordings)], answer, argument=order, order=order)


def he_to_she(dice: Dice) -> Iterator[Exercise]:
    """He lost his hat. She lost her hat."""
    wordings = ("Change he to she.||{sentence}", "Write this about a girl.||{sentence}")
    back = ("Change she to he.||{sentence}", "Write this about a boy.||{sentence}")
    for _ in range(N_DRAWS):
        deed, thing = dice.pick(_DEEDS), dice.pick(_THINGS)
        thing = f"{dice.pick(COLOURS)} {thing}" if dice.chance(40) else thing
        about_him, about_her = f"He {deed} his {thing}.", f"She {deed} her {thing}."
        if dice.chance(50):
            yield from asked([dice.pick(wordings)], about_her, argument=about_him, sentence=about_him)
        else:
            yield from asked([dice.pick(back)], about_him, argument=about_her, sentence=about_her)


def capital_letter(dice: Dice) -> Iterator[Exercise]:
    """the dog ran home. The dog ran home."""
    wordings = (
        "Start the sentence with a capital letter.||{sentence}",
        "Correct the first letter.||{sentence}",
        "Write it with a capital letter.||{sentence}",
    )
    for _ in range(N_DRAWS):
        sentence = _short_sentence(dice)
        lower = sentence[0].lower() + sentence[1:]
        yield from asked([dice.pick(wordings)], sentence, argument=lower, sentence=lower)


def first_word(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: the first word is moon."""
    wordings = (
        "What is the first word of: {given}",
        "Find the first word: {given}",
        "Which word comes first: {given}",
    )
    return _find_word(dice, wordings, place=0, name="first")


def last_word(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: the last word is cow."""
    wordings = (
        "What is the last word of: {given}",
        "Find the last word: {given}",
        "Which word comes last: {given}",
    )
    return _find_word(dice, wordings, place=-1, name="last")


def _find_word(dice: Dice, wordings: tuple[str, ...], *, place: int, name: str) -> Iterator[Exercise]:
    for _ in range(N_DRAWS):
        given = dice.sample(SORTABLE, 2 + dice.below(3))
        answer = f"The {name} word is {given[place]}."
        yield from asked([dice.pick(wordings)], answer, argument=" ".join(given), given=" ".join(given))


def count_words(dice: Dice) -> Iterator[Exercise]:
    """moon tree cow: there are three words."""
    wordings = (
        "How many words are there: {given}",
        "Count the words: {given}",
        "How many words do you see: {given}",
    )
    for _ in range(N_DRAWS):
        given = dice.sample(SORTABLE, 2 + dice.below(4))
        answer = f"There are {LISTS['number'][len(given) - 1]} words."
        yield from asked([dice.pick(wordings)], answer, argument=" ".join(given), given=" ".join(given))


def _short_sentence(dice: Dice) -> str:
    """A sentence of four to six words that starts with `The`, `He`, `She` or `My`."""
    animal, relative = dice.pick(list(ANIMALS)), dice.pick(("brother", "sister", "friend", "uncle"))
    start = dice.pick(("He", "She", f"The {animal}", f"My {relative}"))
    deed, colour = dice.pick(_DEEDS), dice.pick(COLOURS).replace("orange", "red")
    return f"{start} {deed} a {colour} {dice.pick(_THINGS)}."
