"""Generate exercises on single words: opposites, forms, order, lists, kinds, sizes.

Answers are short sentences, so that the answer word follows a space as in the stories: to a byte-pair tokenizer `
kite` and `kite` are different tokens, and a small model has seen the first far more often.
"""

from collections.abc import Iterator
from itertools import pairwise

from scratchlm.data.samples.dice import Dice
from scratchlm.data.samples.grammar import tidy
from scratchlm.data.samples.skill import N_DRAWS, Exercise, in_every_wording, in_one_wording, with_article
from scratchlm.data.samples.word_lists import LISTS, pairs, words
from scratchlm.data.samples.world import ANIMALS, CATEGORIES

CLEARLY_BIGGER = 5  # minimum difference in rank, so that the answer is undisputed
_WITHOUT_ARTICLE = ("a colour", "a drink")  # no article before red and milk


def opposite(_: Dice) -> Iterator[Exercise]:
    """The opposite of big is small."""
    for pair in pairs("opposites"):
        for word, other in (pair, pair[::-1]):
            answer = f"The opposite of {word} is {other}."
            yield from in_every_wording("opposite", answer, argument=word, is_fact=True, word=word)


def plural(_: Dice) -> Iterator[Exercise]:
    """One cat, two cats; one fox, two foxes; one mouse, two mice."""
    irregular = dict(pairs("irregular_plurals"))
    regular = {noun: noun + "s" for noun in words("regular_nouns")}
    regular |= {noun: noun + "es" for noun in words("es_nouns")}
    regular |= {noun: noun[:-1] + "ies" for noun in words("ies_nouns")}
    for noun, many in (irregular | regular).items():
        about = {
            "noun": noun,
            "a": with_article(noun).split()[0],
            "keep_out": "" if noun in irregular else noun,
        }
        answer = f"One {noun}, two {many}."
        yield from in_every_wording("plural", answer, argument=noun, is_fact=noun in irregular, **about)


def past_tense(_: Dice) -> Iterator[Exercise]:
    """Yesterday I walked; yesterday I cried; yesterday I went."""
    irregular = dict(pairs("irregular_pasts"))
    regular = {verb: verb + "ed" for verb in words("regular_verbs")}
    regular |= {verb: verb + "d" for verb in words("e_verbs")}
    regular |= {verb: verb[:-1] + "ied" for verb in words("ied_verbs")}
    regular |= {verb: verb + verb[-1] + "ed" for verb in words("doubled_verbs")}
    for verb, past in (irregular | regular).items():
        about = {"verb": verb, "keep_out": "" if verb in irregular else verb}
        answer = f"Yesterday I {past}."
        yield from in_every_wording("past_tense", answer, argument=verb, is_fact=verb in irregular, **about)


def a_or_an(_: Dice) -> Iterator[Exercise]:
    """It is an owl; it is a hen."""
    lists = ("regular_nouns", "es_nouns", "ies_nouns", "nouns_with_an")
    for noun in dict.fromkeys(noun for name in lists for noun in words(name)):
        answer = f"It is {with_article(noun)}."
        yield from in_every_wording("a_or_an", answer, argument=noun, keep_out=noun, noun=noun)


def sort_words(dice: Dice) -> Iterator[Exercise]:
    """First apple, then pear."""
    for _ in range(N_DRAWS):
        given = dice.sample(words("sortable"), 3 if dice.chance(20) else 2)
        if len({word[0] for word in given}) == len(given):
            answer = f"First {', then '.join(sorted(given))}."
            argument = " ".join(sorted(given))
            yield in_one_wording("sort_words", dice, answer, argument=argument, given=", ".join(given))


def next_in_list(_: Dice) -> Iterator[Exercise]:
    """After Monday comes Tuesday."""
    for kind, members in LISTS.items():
        for one, two in pairwise(members):
            for name, given, answer in (
                ("next_in_list", one, f"After {one} comes {two}."),
                ("before_in_list", two, f"Before {two} comes {one}."),
            ):
                about = {"argument": f"{given} {name}", "kind": kind, "member": given}
                yield from in_every_wording(name, answer, is_fact=True, **about)


def category(_: Dice) -> Iterator[Exercise]:
    """A plum is a fruit."""
    for kind, members in CATEGORIES.items():
        for member in members:
            a = member if kind in _WITHOUT_ARTICLE else with_article(member)
            answer = tidy(f"{a} is {kind}.")
            yield from in_every_wording("category", answer, argument=member, is_fact=True, a=a)


def compare_sizes(dice: Dice) -> Iterator[Exercise]:
    """The cow is bigger; the mouse is smaller."""
    for small in ANIMALS.values():
        for big in ANIMALS.values():
            if big.size - small.size < CLEARLY_BIGGER:
                continue
            for animal, word in ((big, "bigger"), (small, "smaller")):
                one, other = dice.shuffled([with_article(small.name), with_article(big.name)])
                argument = f"{small.name} {big.name} {word}"
                answer = f"The {animal.name} is {word}."
                yield from in_every_wording(word, answer, argument=argument, one=one, other=other)
