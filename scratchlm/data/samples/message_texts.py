"""The wording of the sample messages.

Wanted and unwanted messages come from the sheets `sheets/ham.txt` and `sheets/spam.txt`; then both are
roughed up in the same way, with abbreviations, typos and shouting, so that neither spelling nor one word
gives spam away. Still, messages made from one pattern sit on both sides of any random split, so accuracy here
flatters: real messages are harder. Firms are invented; links and telephone numbers come from ranges kept free
for examples (RFC 2606; 555-01xx).
"""

from __future__ import annotations

import re

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import Line, Sheet, bind, expand, load_sheet

N_HAM, N_SPAM = 1000, 600
NEAR_DUPLICATE_PERCENT = 5  # of the repeats drawn that are kept: a few, as in real collections

_SHORT = {  # what hurried thumbs make of a word
    "you": "u", "are": "r", "your": "ur", "please": "pls", "tomorrow": "tmrw", "because": "cos", "see": "c",
    "thanks": "thx", "for": "4", "to": "2", "tonight": "2nite", "text": "txt", "love": "luv", "people": "ppl",
    "about": "abt", "before": "b4", "great": "gr8", "message": "msg", "minutes": "mins", "really": "rly",
}  # fmt: skip


def labelled_messages(seed: int) -> list[tuple[str, str]]:
    """The messages as (text, label) pairs, label `spam` or `ham`, in random order, no text twice."""
    dice = Dice(seed, "messages")
    messages = [(text, "ham") for text in _messages("sheets/ham.txt", N_HAM, dice)]
    messages += [(text, "spam") for text in _messages("sheets/spam.txt", N_SPAM, dice)]
    return dice.shuffled(messages)


def _messages(path: str, n: int, dice: Dice) -> list[str]:
    """Messages of all kinds of a sheet in equal parts, no text twice and few alike but for digits."""
    sheet = load_sheet(path)
    kinds = list(sheet.beats)
    found: dict[str, None] = {}
    folds: set[str] = set()  # what is left without case, digits' values and punctuation
    while len(found) < n:
        text = _message(sheet, sheet.beats[kinds[len(found) % len(kinds)]], dice)
        fold = re.sub("[0-9]+", "0", re.sub("[^a-z0-9 ]", "", text.lower()))
        if fold in folds and not dice.chance(NEAR_DUPLICATE_PERCENT):
            continue
        folds.add(fold)
        found.setdefault(text)
    return list(found)


def _message(sheet: Sheet, lines: list[Line], dice: Dice) -> str:
    slots = _numbers(dice)
    bind(sheet.lets, slots, dice)
    text = expand(dice.pick(lines).pattern, slots, dice)
    text = re.sub(" {2,}", " ", text).strip()
    text = text[:1].upper() + text[1:]
    return _rough(text, dice)


def _numbers(dice: Dice) -> dict[str, str]:
    digits = "0123456789"
    letters = "abcdefghjkmnpqrstuvwxyz"
    return {
        "n": str(2 + dice.below(8)),
        "n2": str(dice.below(4)),
        "h": str(1 + dice.below(6)),
        "h2": str(7 + dice.below(5)),
        "m": str(5 * (1 + dice.below(8))),
        "d2": dice.pick(digits) + dice.pick(digits),
        "d3": dice.pick(digits) + dice.pick(digits) + dice.pick(digits),
        "pct": str(5 * (1 + dice.below(19))),
        "age": str(21 + dice.below(20)),
        "code": dice.pick(digits) + dice.pick(letters) + dice.pick(digits) + dice.pick(letters),
        "dayword": dice.pick(("day", "weekend", "trip", "holiday", "exam", "date", "first day")),
        "when2": dice.pick(("yesterday", "last night", "at lunch", "on the phone")),
    }


def _rough(text: str, dice: Dice) -> str:
    """The message as somebody in a hurry might have typed it; half of them stay as they are."""
    if dice.chance(50):
        return text
    words = text.split(" ")
    if dice.chance(50):
        words = [_SHORT.get(word, word) if dice.chance(60) else word for word in words]
    if dice.chance(25):
        words = [_typo(word, dice) if dice.chance(8) else word for word in words]
    text = " ".join(words)
    if dice.chance(35):
        text = text.lower()
    elif dice.chance(7):
        text = text.upper()
    if dice.chance(30):
        text = text.replace("'", "").rstrip(".")
    if dice.chance(12):
        text = text.replace("!", "!!").replace(". ", "! ")
    return text


def _typo(word: str, dice: Dice) -> str:
    """Two letters swapped, or one lost; links and numbers keep their shape."""
    if len(word) < 4 or not word.isalpha():
        return word
    place = 1 + dice.below(len(word) - 2)
    if dice.chance(50):
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
