import hashlib
import re
from collections import Counter

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.data.samples import SAMPLE_NOTICE
from scratchlm.data.samples import world as the_world
from scratchlm.data.samples.overlap import overlap_report, sentences
from scratchlm.data.samples.stories import DEFAULT_N, sample_stories, side_of


@pytest.fixture(scope="module")
def train():
    return sample_stories(seed=0)


@pytest.fixture(scope="module")
def val():
    return sample_stories(seed=0, split="val")


def digest(texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def test_seed_zero_gives_the_same_bytes_on_every_python(train, val):
    # Made by this generator and compared by hand on Python 3.10 to 3.13; any edit of a plot changes it.
    assert digest(train[:2000]) == "e575aa27976e3ca941a246080dd4d7f87b3eee482940947657c734190d48e990"
    assert digest(val) == "9e39aee9e2c993176ba25545ce5d6e37f07485084b3836a14c9238c4fb92460e"


def test_the_defaults_hold_enough_text(train, val):
    assert (len(train), len(val)) == (DEFAULT_N["train"], DEFAULT_N["val"])
    assert sum(map(len, train)) > 2_800_000
    assert sum(map(len, val)) > 100_000


def test_every_story_has_80_to_250_words(train, val):
    assert all(80 <= len(story.split()) <= 250 for story in train + val)


def test_a_shorter_sample_is_the_beginning_of_a_longer_one(train):
    assert sample_stories(seed=0, n=5) == train[:5]


def test_other_seeds_tell_other_stories(train):
    assert not set(sample_stories(seed=1, n=50)) & set(train)


def test_no_story_is_told_twice(train):
    assert len(set(train)) == len(train)


def test_train_and_validation_share_no_sentence(train, val):
    assert not {s for text in train for s in sentences(text)} & {s for text in val for s in sentences(text)}
    assert overlap_report(train, val).shared_sentences == 0.0


def test_no_two_seeds_let_a_sentence_change_sides(train):
    other_val = sample_stories(seed=7, n=40, split="val")
    assert all(side_of(sentence) == "val" for story in other_val for sentence in sentences(story))
    assert overlap_report(train, other_val).shared_sentences == 0.0


def test_most_sentences_occur_once_so_that_lines_cannot_be_learned_by_heart(train):
    counts = Counter(sentence for story in train for sentence in sentences(story))
    assert len(counts) > 30_000
    assert counts.most_common(1)[0][1] < 0.0025 * counts.total()


def test_all_sentences_end_with_punctuation_and_begin_with_a_capital(train, val):
    for story in train + val:
        for sentence in sentences(story):
            assert re.search(r'[.!?]"?$', sentence), sentence
            assert re.match(r'"?[A-Z]', sentence), sentence


SLIPS = {
    "two spaces": r"  ",
    "a before a vowel": r"\b[Aa] [aeioAEIO](?!ne\b)",
    "an before a consonant": r"\b[Aa]n [^aeiouhAEIOUH]",
    "a mark of the pattern language": r"[{}\[\]|@]",
    "a space before a stop": r" [.,!?;]",
    "two stops": r"[.,!?;]{2}",
    "a word twice": r"\b(?!had\b|her\b)(\w+) \1\b",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_stories_have_no_slip_of_the_generator(train, val, slip):
    found = re.search(SLIPS[slip], "\n".join(train + val))
    assert found is None, found.string[found.start() - 60 : found.end() + 60]


def test_quotation_marks_are_balanced_in_every_paragraph(train, val):
    assert all(paragraph.count('"') % 2 == 0 for story in train + val for paragraph in story.split("\n\n"))


def hero_of(story):
    """The hero's name, and whether the opening calls them he, she or neither."""
    opening = sentences(story)[0]
    names = [
        name for name in the_world.GIRLS + the_world.HER_ANIMAL_NAMES if re.search(rf"\b{name}\b", opening)
    ]
    others = [
        name for name in the_world.BOYS + the_world.HIS_ANIMAL_NAMES if re.search(rf"\b{name}\b", opening)
    ]
    assert len(names) + len(others) == 1, opening
    return (names or others)[0], bool(names)


def test_the_opening_names_a_hero_and_uses_the_right_pronoun(train, val):
    for story in train + val:
        _, is_she = hero_of(story)
        opening = sentences(story)[0]
        wrong = r"\b(he|his|him|boy)\b" if is_she else r"\b(she|her|girl|hen|cow)\b"
        assert not re.search(wrong, opening), opening


def test_a_reflexive_agrees_with_the_name_before_it(train, val):
    """Whoever does something to himself or herself is named, or called he or she, earlier in the sentence."""
    for story in train + val:
        for sentence in sentences(story):
            match = re.search(r"\b(himself|herself)\b", sentence)
            if match:
                before = set(re.findall(r"\w+", sentence[: match.start()]))
                boys = {*the_world.BOYS, *the_world.HIS_ANIMAL_NAMES, "he", "He", "his", "His"}
                girls = {*the_world.GIRLS, *the_world.HER_ANIMAL_NAMES, "she", "She", "her", "Her"}
                assert before & (boys if match[0] == "himself" else girls), sentence


HOME_CLAIM = r"\b[Aa]n? (\w+) lives ((?:in|on|by|under) [^,.\"]+?)(?: and\b|[,.\"])"


def test_stories_keep_to_the_facts_of_their_world(train, val):
    """Wherever a story says in general what an animal says, eats or where it lives, the tables say so too."""
    n_checked = 0
    for story in train + val:
        for name, what in re.findall(r"\b[Aa]n? (\w+) says \"?(\w+)", story):
            if name in the_world.ANIMALS:
                assert the_world.ANIMALS[name].sound == what
                n_checked += 1
        for name, what in re.findall(r"\b[Aa]n? (\w+) (?:eats|likes) (\w+)", story):
            if name in the_world.ANIMALS and what != "to":
                assert the_world.ANIMALS[name].food == what
                n_checked += 1
        for name, what in re.findall(
            r"\b(?:[Aa]n?|Every|every) (\w+) lives ((?:in|on|by|under) [^,.\"]+?)(?: and\b|[,.\"])", story
        ):
            if name in the_world.ANIMALS:
                assert the_world.ANIMALS[name].home == what
                n_checked += 1
    assert n_checked > 300


@pytest.mark.parametrize("field", ["food", "home", "sound"])
def test_the_stories_show_every_fact_that_instructions_ask_about(train, field):
    text = "\n".join(train)
    for animal in the_world.ANIMALS.values():
        value = getattr(animal, field)
        if value:
            assert re.search(rf"\b{value}\b", text, re.IGNORECASE), (animal.name, value)
            assert len(re.findall(rf"\b{animal.name}\b", text)) > 20


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="'train' or 'val', got 'test'"):
        sample_stories(split="test")
    with pytest.raises(ConfigError, match="got -1"):
        sample_stories(n=-1)


def test_the_notice_says_that_nothing_here_is_real():
    assert "generator" in SAMPLE_NOTICE
    assert SAMPLE_NOTICE.endswith(".")
