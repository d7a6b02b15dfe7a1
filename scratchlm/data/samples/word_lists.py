"""Word lists and word forms for the exercises on words."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a text, so that word lists are easy to read."""
    return tuple(text.split())


def grouped(text: str) -> tuple[tuple[str, ...], ...]:
    """Groups of words, separated by commas."""
    return tuple(listed(group) for group in text.split(","))


def pairs(text: str) -> dict[str, str]:
    """Pairs of words, separated by commas."""
    return {group[0]: group[1] for group in grouped(text)}


OPPOSITES = grouped(
    "big small, hot cold, happy sad, long short, old new, good bad, fast slow, day night, up down, "
    "open closed, full empty, wet dry, hard soft, light dark, high low, rich poor, strong weak, loud "
    "quiet, clean dirty, left right, first last, yes no, near far, brave afraid, warm cool, black "
    "white, summer winter, morning evening, friend enemy, come go, push pull, win lose, laugh cry, "
    "love hate, find hide, sweet sour, thick thin, inside outside, before after, asleep awake, boy "
    "girl, brother sister, mother father"
)

REGULAR_NOUNS = listed(
    "apple bag ball bed bee bell bird boat bone book boot bowl boy bridge brother button cake candle "
    "cap cart cat chair cloud coat cookie cow crow cup dog door dream drum duck egg eye farm feather "
    "field fire flower fork friend frog game garden gate girl goat hand hat hedge hen hill hole horse "
    "house king kite lake lamp lantern leg letter map mill mitten mother mountain nest night nut owl "
    "pan path pear pig pillow plum pond pot queen rabbit ring river road roof room rope school seed "
    "sheet shirt shoe sister snail sock song spade spoon squirrel stable star stick stone storm sun "
    "table tail tent tower town toy tree turnip village wall well wheel whistle window wing winter "
    "worm year"
)
ES_NOUNS = listed(
    "fox box bush dress glass bus peach brush wish class bench watch church dish cross kiss match lunch"
)
IES_NOUNS = listed("berry cherry story city baby lady party puppy penny fairy daisy butterfly fly family")
IRREGULAR_PLURALS = pairs(
    "mouse mice, child children, man men, woman women, foot feet, tooth teeth, goose geese, sheep "
    "sheep, leaf leaves, wolf wolves, knife knives, scarf scarves, calf calves, fish fish, half "
    "halves, loaf loaves, shelf shelves, potato potatoes"
)
NOUNS_WITH_AN = listed(
    "aunt uncle orange onion ear arm ant apron axe island animal acorn oak evening umbrella"
)

REGULAR_VERBS = listed(
    "ask answer bark boil call clean climb cook count cover cough crawl cross dream dress enjoy fill "
    "finish follow greet guess happen help hunt jump kick kiss knock land laugh learn lick lift "
    "listen look melt mend miss open paint pick plant play point pull push rain reach rest roll row "
    "sail shout sign smell snow sort start stay talk thank touch turn visit wait walk want wash watch "
    "whisper wish wonder work yell"
)
E_VERBS = listed(
    "bake believe care chase close dance decide hope invite like live love move notice place save "
    "share smile taste use arrive breathe promise race raise serve"
)
IED_VERBS = listed("carry cry dry hurry try study worry marry fry copy empty")
DOUBLED_VERBS = listed("stop drop hop hug plan clap nod grab skip slip tap hum beg shop")
IRREGULAR_PASTS = pairs(
    "go went, see saw, run ran, eat ate, come came, give gave, take took, find found, fly flew, swim "
    "swam, sing sang, sleep slept, make made, say said, tell told, think thought, bring brought, buy "
    "bought, catch caught, fall fell, feel felt, get got, grow grew, have had, hear heard, hide hid, "
    "hold held, keep kept, know knew, leave left, lose lost, meet met, sit sat, speak spoke, stand "
    "stood, throw threw, wake woke, win won, write wrote, break broke, build built, blow blew, begin "
    "began, drink drank, dig dug, draw drew"
)

SORTABLE = listed(
    "apple ball boat cake cat dog door egg fish garden goat hat hill kite lake milk moon nest night owl pig "
    "pond queen river sheep table tree village water window"
)

LISTS = {  # name of the members of a list -> the list in order
    "day": listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": listed("January February March April May June July August September October November December"),
    "number": listed("one two three four five six seven eight nine ten eleven twelve"),
}
