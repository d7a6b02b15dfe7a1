"""Generate text messages, spam and ham, for the sample data.

The wordings are in `sheets/ham.txt` and `sheets/spam.txt`; abbreviations, typos and capitals are then added
to many messages, so that neither spelling nor a single word identifies spam. The kinds of message, their
lengths and their use of numbers, prices and terms follow real collections, so that a classifier trained here
works on real messages; no wording is taken from them. Messages of one pattern can be on both sides of a
random split, so accuracy on these samples is higher than on real messages. Firms are invented; links use the
domains reserved by RFC 2606; `_telephone` explains the numbers; short codes begin with 0 or 1, which real
ones never do.
"""

import html
import re

from scratchlm.data.classification_rows import LabelledText
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import Line, Pattern, Sheet, bind, expand, load_sheet
from scratchlm.data.samples.word_lists import pairs, words

N_HAM, N_SPAM = 1600, 1000
NEAR_DUPLICATE_PERCENT = 5  # share of repeated draws that are kept, as real collections have a few repeats
ROUGH_PERCENT = {"ham": 65, "spam": 45}  # share of messages with another spelling than in the sheets
JOINED_PERCENT = {"ham": 35, "spam": 10}  # share of messages joined from two, and of these from three
MAX_LENGTH = 300  # characters

_SHORT = dict(pairs("abbreviations"))


def _messages(label: str, n: int, dice: Dice) -> list[str]:
    """Draw different messages of a sheet's kinds by their weights; few differ only in digits."""
    sheet = load_sheet(f"sheets/{label}.txt")
    kinds = [kind for kind in sheet.beats for _ in range(sheet.weights[kind])]
    found: dict[str, None] = {}
    folds: set[str] = set()  # texts without case, digit values and punctuation
    while len(found) < n:
        text = _message(sheet, sheet.beats[dice.pick(kinds)], dice)
        while dice.chance(JOINED_PERCENT[label]):
            more = _message(sheet, sheet.beats[dice.pick(kinds)], dice)
            text = _joined(text, more, dice)
        text = _roughen(text, dice, percent=ROUGH_PERCENT[label])
        fold = re.sub("[0-9]+", "0", re.sub("[^a-z0-9 ]", "", text.lower()))
        if len(text) > MAX_LENGTH or (fold in folds and not dice.chance(NEAR_DUPLICATE_PERCENT)):
            continue
        folds.add(fold)
        found.setdefault(text)
    return list(found)


def _message(sheet: Sheet, lines: list[Line], dice: Dice) -> str:
    slots: dict[str, str | Pattern] = {**_numbers(dice), **sheet.anew}
    bind(sheet.lets, slots, dice)
    text = expand(dice.pick(lines).pattern, slots, dice)
    text = re.sub(r"([!?.,])\.(?= |$)", r"\1", re.sub(" {2,}", " ", text).strip())
    return text[:1].upper() + text[1:]


def _joined(text: str, more: str, dice: Dice) -> str:
    """Join two messages: as two sentences, or the second as a part of the first one's last sentence."""
    if dice.chance(60):
        return f"{text} {more}"
    link = dice.pick((" and ", " but ", ", ", "... ", " so ", " then ", " coz ", " - ", ".."))
    return text.rstrip(".!") + link + more[:1].lower() + more[1:]


def _numbers(dice: Dice) -> dict[str, str]:
    month = dice.pick(("January", "March", "April", "May", "June", "July", "August", "October", "December"))
    date = f"{1 + dice.below(28)} {month[:3]}"
    return {
        "n": str(2 + dice.below(8)),
        "n2": str(dice.below(4)),
        "h": str(1 + dice.below(6)),
        "h2": str(7 + dice.below(5)),
        "m": str(5 * (1 + dice.below(8))),
        "d2": _digits(2, dice),
        "d3": _digits(3, dice),
        "d4": _digits(4, dice),
        "num": "01"[dice.below(2)] + _digits(4, dice),
        "tel": _telephone(dice),
        "p": dice.pick(("8", "10", "12", "15", "18", "20", "25", "36", "50", "60", "75", "100", "150")),
        "pct": str(5 * (1 + dice.below(19))),
        "age": str(18 + dice.below(20)),
        "year": str(1966 + dice.below(50)),
        "code": _digits(1, dice) + _letters(1, dice) + _digits(1, dice) + _letters(1, dice),
        "ref": (_letters(1 + dice.below(3), dice) + _digits(dice.below(4), dice)).upper(),
        "post": (_letters(1 + dice.below(2), dice) + _digits(1, dice) + " " + _digits(1, dice)).upper()
        + _letters(2, dice).upper(),
        "month": month,
        "date": dice.pick((date, f"{1 + dice.below(28)}/{_digits(1, dice)}/{_digits(2, dice)}", month)),
        "noun": dice.pick(words("regular_nouns")),
        "noun2": dice.pick(words("regular_nouns")),
        "verb0": dice.pick((*words("regular_verbs"), *dict(pairs("irregular_pasts")))),
        "past": dice.pick(
            ("saw", "found", "lost", "bought", "broke", "painted", "dropped", "hid", "washed", "drew")
        ),
        "past2": dice.pick([past for _, past in pairs("irregular_pasts")]),
        "dayword": dice.pick(("day", "weekend", "trip", "holiday", "exam", "date", "first day")),
        "when2": dice.pick(("yesterday", "last night", "at lunch", "on the phone", "last week", "just now")),
    }


def _digits(n: int, dice: Dice) -> str:
    return "".join(dice.pick("0123456789") for _ in range(n))


def _letters(n: int, dice: Dice) -> str:
    return "".join(dice.pick("abcdefghjkmnpqrstuvwxyz") for _ in range(n))


def _telephone(dice: Dice) -> str:
    """A telephone number that cannot exist: reserved for fiction, or with too many digits."""
    end = _digits(3, dice)
    return dice.pick((
        f"555-01{end[:2]}", f"0909 8790{end}", f"09098790{end}", f"0808 157 0{end}", f"08081570{end}",
        f"07700 900{end}", f"07700900{end}", f"020 7946 0{end}", f"01632 960{end}", f"0{_digits(11, dice)}",
        f"09{_digits(10, dice)}", f"08{_digits(10, dice)}", f"087{_digits(9, dice)}", f"090{_digits(9, dice)}",
        f"07{_digits(10, dice)}", f"+440{_digits(10, dice)}", f"08{_digits(2, dice)} {_digits(8, dice)}",
    ))  # fmt: skip


def _roughen(text: str, dice: Dice, *, percent: int) -> str:
    """With this probability, change the message to look typed in a hurry."""
    if not dice.chance(percent):
        return text
    typed = text.split(" ")
    if dice.chance(60):
        share = dice.pick((20, 40, 70))
        typed = [_SHORT.get(word.lower(), word) if dice.chance(share) else word for word in typed]
    if dice.chance(25):
        typed = [_typo(word, dice) if dice.chance(8) else word for word in typed]
    text = " ".join(typed)
    if dice.chance(35):
        text = text.lower()
    elif dice.chance(9):
        text = text.upper()
    if dice.chance(30):
        text = text.replace("'", dice.pick(("", "", "’", "‘"))).rstrip(".")
    if dice.chance(12):
        text = text.replace("!", "!!").replace(". ", "! ")
    if dice.chance(14):
        text = text.replace(", ", "...").replace(". ", "... ")
    if dice.chance(10):
        text = re.sub(r"([?!,]) ", r"\1", text)
    if dice.chance(6):
        # Collections mask people's numbers like this.
        text = re.sub(r"(?<!\S)[0-9]+(?: [0-9]+)*(?! [0-9])(?=\.?(?:[^\w.]|$))", "<#>", text)
    if dice.chance(20):
        text = html.escape(text, quote=False)  # as in texts copied from web pages
    return text


def _typo(word: str, dice: Dice) -> str:
    """Swap two letters, or drop one; links and numbers are not changed."""
    if len(word) < 4 or not word.isalpha():
        return word
    place = 1 + dice.below(len(word) - 2)
    if dice.chance(50):
        return word[:place] + word[place + 1 :]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def sample_messages(*, seed: int = 0) -> list[LabelledText]:
    """2,600 messages in random order, 1,000 of them spam; labels are `spam` and `ham`; see `SAMPLE_NOTICE`.

    All texts differ; a few only in digits, case or punctuation, as in real collections.
    Example:
        >>> sample_messages(seed=0) == sample_messages(seed=0)
        True
    """
    dice = Dice(seed, "messages")
    messages = [
        LabelledText(text=text, label=label)
        for label, n in (("ham", N_HAM), ("spam", N_SPAM))
        for text in _messages(label, n, dice)
    ]
    return dice.shuffled(messages)
