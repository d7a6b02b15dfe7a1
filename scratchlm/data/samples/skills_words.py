"""Skills on single words: opposites, forms, order, rhymes, kinds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from scratchlm.data.samples import word_lists as words
from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import Exercise, asked
from scratchlm.data.samples.world import ANIMALS, CATEGORIES

N_DRAWS = 420  # exercises drawn for a skill whose arguments are too many to list


def opposite(_: Dice) -> Iterator[Exercise]:
    """Big: small."""
    wordings = (
        "What is the opposite of {word}?",
        "Give the opposite of this word.||{word}",
        "Say the opposite.||{word}",
        "Which word means the opposite of {word}?",
    )
    for pair in words.OPPOSITES:
        for word, answer in (pair, pair[::-1]):
            yield from asked(wordings, answer, argument=word, is_fact=True, word=word)


def plural(_: Dice) -> Iterator[Exercise]:
    """Cat: cats; fox: foxes; mouse: mice."""
    wordings = (
        "What is the plural of {noun}?",
        "Write the plural.||{noun}",
        "Give the plural form of {noun}.",
        "One {noun}, many what?",
        "Make this word plural.||{noun}",
    )
    for noun, answer in words.IRREGULAR_PLURALS.items():
        yield from asked(wordings, answer, argument=noun, is_fact=True, noun=noun)
    regular = {noun: noun + "s" for noun in words.REGULAR_NOUNS}
    regular |= {noun: noun + "es" for noun in words.ES_NOUNS}
    regular |= {noun: noun[:-1] + "ies" for noun in words.IES_NOUNS}
    for noun, answer in regular.items():
        yield from asked(wordings, answer, argument=noun, keep_out=noun, noun=noun)


def past_tense(_: Dice) -> Iterator[Exercise]:
    """Walk: walked; cry: cried; go: went."""
    wordings = (
        "What is the past tense of {verb}?",
        "Write the past tense.||{verb}",
        "Give the past form of {verb}.",
        "Today I {verb}. What did I do yesterday?",
        "Put this verb into the past.||{verb}",
    )
    for verb, answer in words.IRREGULAR_PASTS.items():
        yield from asked(wordings, answer, argument=verb, is_fact=True, verb=verb)
    regular = {verb: verb + "ed" for verb in words.REGULAR_VERBS}
    regular |= {verb: verb + "d" for verb in words.E_VERBS}
    regular |= {verb: verb[:-1] + "ied" for verb in words.IED_VERBS}
    regular |= {verb: verb + verb[-1] + "ed" for verb in words.DOUBLED_VERBS}
    for verb, answer in regular.items():
        yield from asked(wordings, answer, argument=verb, keep_out=verb, verb=verb)


def a_or_an(_: Dice) -> Iterator[Exercise]:
    """Owl: an owl; hen: a hen."""
    wordings = (
        "Is it a or an?||{noun}",
        "Put a or an before the word.||{noun}",
        "Add a or an to the word {noun}.",
    )
    nouns = dict.fromkeys([*words.REGULAR_NOUNS, *words.ES_NOUNS, *words.IES_NOUNS, *words.NOUNS_WITH_AN])
    for noun in nouns:
        yield from asked(wordings, tidy(f"x a {noun}")[2:], argument=noun, keep_out=noun, noun=noun)


def sort_words(dice: Dice) -> Iterator[Exercise]:
    """Pear, apple: apple, pear."""
    wordings = (
        "Sort these words alphabetically.||{given}",
        "Put the words in the order of the alphabet.||{given}",
        "Write these words in alphabetical order: {given}",
    )
    for _ in range(N_DRAWS):
        given = dice.sample(words.SORTABLE, 3 if dice.chance(20) else 2)
        if len({word[0] for word in given}) == len(given):
            answer = sorted(given)
            yield from asked(
                [dice.pick(wordings)], ", ".join(answer), argument=" ".join(answer), given=", ".join(given)
            )


def rhyme(dice: Dice) -> Iterator[Exercise]:
    """Which word rhymes with cat: hat or dog? Hat."""
    wordings = (
        "Which word rhymes with {word}: {one} or {other}?",
        "Find the word that rhymes with {word}.||{one}, {other}",
        "What rhymes with {word}, {one} or {other}?",
    )
    for _ in range(N_DRAWS):
        group, foreign = dice.sample(words.RHYMES, 2)
        word, answer = dice.sample(group, 2)
        other = dice.pick(foreign)
        one, two = dice.sample([answer, other], 2)
        argument = f"{word} {answer} {other}"
        yield from asked([dice.pick(wordings)], answer, argument=argument, word=word, one=one, other=two)


def next_in_list(_: Dice) -> Iterator[Exercise]:
    """What comes after Monday? Tuesday."""
    after = (
        "What comes after {member}?",
        "Which {kind} comes after {member}?",
        "Name the {kind} after {member}.",
        "Which {kind} is next?||{member}",
    )
    before = (
        "What comes before {member}?",
        "Which {kind} comes before {member}?",
        "Name the {kind} before {member}.",
        "Which {kind} was just before?||{member}",
    )
    for kind, members in words.LISTS.items():
        for member, following in pairwise(members):
            yield from asked(after, following, argument=f"{member}+", is_fact=True, kind=kind, member=member)
            if kind == "letter":
                continue  # nobody learns the alphabet backwards
            yield from asked(
                before, member, argument=f"{following}-", is_fact=True, kind=kind, member=following
            )


def category(_: Dice) -> Iterator[Exercise]:
    """What kind of thing is a plum? A fruit."""
    wordings = (
        "What kind of thing is this?||{member}",
        "Which group does {member} belong to?",
        "Name the kind of thing.||{member}",
        "{Member} is a kind of what?",
    )
    for kind, members in CATEGORIES.items():
        for member in members:
            yield from asked(
                wordings, kind, argument=member, is_fact=True, member=member, Member=member.capitalize()
            )


def odd_one_out(dice: Dice) -> Iterator[Exercise]:
    """Plum, dog, pear: dog."""
    wordings = (
        "Which word does not belong?||{given}",
        "Find the odd one out.||{given}",
        "One of these is different. Which one?||{given}",
    )
    kinds = list(CATEGORIES.values())
    for _ in range(N_DRAWS):
        kind, foreign = dice.sample(kinds, 2)
        answer = dice.pick(foreign)
        given = dice.shuffled([*dice.sample(kind, 2), answer])
        argument = " ".join(sorted(given))
        yield from asked([dice.pick(wordings)], answer, argument=argument, given=", ".join(given))


def compare_sizes(dice: Dice) -> Iterator[Exercise]:
    """Which is bigger, a mouse or a cow? A cow."""
    bigger = ("Which is bigger, {one} or {other}?", "Which animal is bigger?||{one}, {other}")
    smaller = ("Which is smaller, {one} or {other}?", "Which animal is smaller?||{one}, {other}")
    for small in ANIMALS.values():
        for big in ANIMALS.values():
            if big.size - small.size < 5:
                continue
            for wordings, answer in ((bigger, big), (smaller, small)):
                one, other = (tidy(f"x a {animal.name}")[2:] for animal in dice.shuffled([small, big]))
                argument = f"{small.name} {big.name} {answer.name}"
                yield from asked(
                    wordings, tidy(f"x a {answer.name}")[2:], argument=argument, one=one, other=other
                )


def repeat(_: Dice) -> Iterator[Exercise]:
    """Say kite three times: kite kite kite."""
    for times, n in (("two", 2), ("three", 3)):
        wordings = (
            f"Say {{noun}} {times} times.",
            f"Write this word {times} times.||{{noun}}",
            f"Repeat it {times} times.||{{noun}}",
        )
        for noun in words.REGULAR_NOUNS:
            yield from asked(wordings, " ".join([noun] * n), argument=f"{noun} {n}", keep_out=noun, noun=noun)


def swap(dice: Dice) -> Iterator[Exercise]:
    """Red hat: hat red."""
    wordings = (
        "Swap the two words.||{one} {other}",
        "Change the order of the words.||{one} {other}",
        "Turn it around: {one} {other}",
    )
    for _ in range(N_DRAWS):
        one, other = dice.sample(words.SORTABLE, 2)
        yield from asked(
            [dice.pick(wordings)], f"{other} {one}", argument=f"{one} {other}", one=one, other=other
        )
