"""Generate exercises on single words: opposites, forms, order, lists, kinds, sizes.

Answers are short sentences, so that the answer word follows a space as in the stories: to a byte-pair tokenizer `
kite` and `kite` are different tokens, and a small model has seen the first far more often.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from scratchlm.data.samples import word_lists as words
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, asked, with_article
from scratchlm.data.samples.world import ANIMALS, CATEGORIES

N_DRAWS = 420  # exercises drawn for a skill with too many arguments to enumerate


def opposite(_: Dice) -> Iterator[Exercise]:
    """The opposite of big is small."""
    wordings = (
        "What is the opposite of {word}?",
        "Give the opposite of {word}.",
        "Which word means the opposite of {word}?",
    )
    for pair in words.OPPOSITES:
        for word, other in (pair, pair[::-1]):
            answer = f"The opposite of {word} is {other}."
            yield from asked(wordings, answer, argument=word, is_fact=True, word=word)


def plural(_: Dice) -> Iterator[Exercise]:
    """One cat, two cats; one fox, two foxes; one mouse, two mice."""
    wordings = (
        "What is the plural of {noun}?",
        "Write the plural.||{a} {noun}",
        "Give the plural of the word {noun}.",
        "Make it two.||one {noun}",
    )
    regular = {noun: noun + "s" for noun in words.REGULAR_NOUNS}
    regular |= {noun: noun + "es" for noun in words.ES_NOUNS}
    regular |= {noun: noun[:-1] + "ies" for noun in words.IES_NOUNS}
    for noun, many in (words.IRREGULAR_PLURALS | regular).items():
        is_fact = noun in words.IRREGULAR_PLURALS
        yield from asked(
            wordings,
            f"One {noun}, two {many}.",
            argument=noun,
            is_fact=is_fact,
            keep_out="" if is_fact else noun,
            noun=noun,
            a=with_article(noun).split()[0],
        )


def past_tense(_: Dice) -> Iterator[Exercise]:
    """Yesterday I walked; yesterday I cried; yesterday I went."""
    wordings = (
        "What is the past tense of {verb}?",
        "Put it into the past.||I {verb}.",
        "Give the past form of {verb}.",
        "Today I {verb}. And yesterday?",
    )
    regular = {verb: verb + "ed" for verb in words.REGULAR_VERBS}
    regular |= {verb: verb + "d" for verb in words.E_VERBS}
    regular |= {verb: verb[:-1] + "ied" for verb in words.IED_VERBS}
    regular |= {verb: verb + verb[-1] + "ed" for verb in words.DOUBLED_VERBS}
    for verb, past in (words.IRREGULAR_PASTS | regular).items():
        is_fact = verb in words.IRREGULAR_PASTS
        keep_out = "" if is_fact else verb
        answer = f"Yesterday I {past}."
        yield from asked(wordings, answer, argument=verb, is_fact=is_fact, keep_out=keep_out, verb=verb)


def a_or_an(_: Dice) -> Iterator[Exercise]:
    """It is an owl; it is a hen."""
    wordings = (
        "Put a or an before the word {noun}.",
        "Is it a or an? The word is {noun}.",
        "Add a or an to {noun}.",
    )
    nouns = words.REGULAR_NOUNS + words.ES_NOUNS + words.IES_NOUNS + words.NOUNS_WITH_AN
    for noun in dict.fromkeys(nouns):
        yield from asked(wordings, f"It is {with_article(noun)}.", argument=noun, keep_out=noun, noun=noun)


def sort_words(dice: Dice) -> Iterator[Exercise]:
    """First apple, then pear."""
    wordings = (
        "Sort these words: {given}",
        "Put these words in the order of the alphabet: {given}",
        "Write these words in alphabetical order: {given}",
    )
    for _ in range(N_DRAWS):
        given = dice.sample(words.SORTABLE, 3 if dice.chance(20) else 2)
        if len({word[0] for word in given}) == len(given):
            answer = f"First {', then '.join(sorted(given))}."
            argument = " ".join(sorted(given))
            yield from asked([dice.pick(wordings)], answer, argument=argument, given=", ".join(given))


def next_in_list(_: Dice) -> Iterator[Exercise]:
    """After Monday comes Tuesday."""
    after = (
        "What comes after {member}?",
        "Which {kind} comes after {member}?",
        "Name the {kind} after {member}.",
    )
    before = (
        "What comes before {member}?",
        "Which {kind} comes before {member}?",
        "Name the {kind} before {member}.",
    )
    for kind, members in words.LISTS.items():
        for one, two in pairwise(members):
            answer = f"After {one} comes {two}."
            yield from asked(after, answer, argument=f"{one}+", is_fact=True, kind=kind, member=one)
            answer = f"Before {two} comes {one}."
            yield from asked(before, answer, argument=f"{two}-", is_fact=True, kind=kind, member=two)


def category(_: Dice) -> Iterator[Exercise]:
    """A plum is a fruit."""
    wordings = ("What kind of thing is {a}?", "What is {a}?", "Which group does {a} belong to?")
    for kind, members in CATEGORIES.items():
        for member in members:
            a = member if kind in _WITHOUT_ARTICLE else with_article(member)
            yield from asked(wordings, tidy(f"{a} is {kind}."), argument=member, is_fact=True, a=a)


_WITHOUT_ARTICLE = ("a colour", "a drink")  # no article before red and milk


def compare_sizes(dice: Dice) -> Iterator[Exercise]:
    """The cow is bigger; the mouse is smaller."""
    bigger = ("Which is bigger, {one} or {other}?", "Which animal is bigger?||{one} or {other}")
    smaller = ("Which is smaller, {one} or {other}?", "Which animal is smaller?||{one} or {other}")
    for small in ANIMALS.values():
        for big in ANIMALS.values():
            if big.size - small.size < CLEARLY_BIGGER:
                continue
            for wordings, animal, word in ((bigger, big, "bigger"), (smaller, small, "smaller")):
                one, other = dice.shuffled([with_article(small.name), with_article(big.name)])
                answer = f"The {animal.name} is {word}."
                argument = f"{small.name} {big.name} {word}"
                yield from asked(wordings, answer, argument=argument, one=one, other=other)


CLEARLY_BIGGER = 5  # minimum difference in rank, so that the answer is undisputed
