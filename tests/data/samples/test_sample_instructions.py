import hashlib
import json
import re
from collections import Counter, defaultdict

import pytest

from scratchlm.data.samples import world as the_world
from scratchlm.data.samples.instructions import SKILLS, sample_instructions

VOWELS = "aeiou"
NUMBERS = ["zero", "one", "two", "three", "four", "five"]
FACT_SKILLS = [
    "opposite",
    "next_in_list",
    "category",
    "food",
    "home",
    "sound",
    "young",
    "colour",
    "true_or_not",
]
RULE_SKILLS = [
    "sort_words",
    "first_word",
    "count_words",
    "make_question",
    "make_polite",
    "he_to_she",
    "what_wanted",
]


@pytest.fixture(scope="module")
def sample():
    return sample_instructions(seed=0)


@pytest.fixture(scope="module")
def by_skill(sample):
    found = defaultdict(list)
    for entry in sample.train + sample.test:
        found[entry.skill].append(entry)
    return found


def held_out(sample, skill, why):
    pairs = zip(sample.test, sample.held_out, strict=True)
    return [entry for entry, reason in pairs if entry.skill == skill and reason == why]


def test_seed_zero_gives_the_same_bytes_on_every_python(sample):
    rows = [[e.skill, e.instruction, e.input, e.output] for e in sample.train + sample.test]
    text = json.dumps([rows, sample.held_out])
    # Made by this generator and compared by hand on Python 3.10 to 3.13; any edit of a skill changes it.
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == "7a1430e0aba37d8f5c43bbe873539ad6f575a79806f9c2d05be6a14c6ec39488"
    )


def test_there_is_enough_to_train_and_to_test_in_every_skill(sample):
    assert 3000 <= len(sample.train) <= 6500
    assert 400 <= len(sample.test) <= 1000
    assert len(SKILLS) >= 12
    train, test = (Counter(e.skill for e in part) for part in (sample.train, sample.test))
    assert set(train) == set(test) == set(SKILLS)
    assert min(train.values()) >= 50
    assert min(test.values()) >= 5


def test_no_question_of_the_test_was_trained_on_and_none_comes_twice(sample):
    train = [(e.instruction, e.input) for e in sample.train]
    test = [(e.instruction, e.input) for e in sample.test]
    assert not set(train) & set(test)
    assert len(set(train)) == len(train)
    assert len(set(test)) == len(test)


def test_each_test_entry_says_why_it_is_new(sample):
    assert len(sample.held_out) == len(sample.test)
    assert set(sample.held_out) == {"entry", "word"}
    assert sample.held_out.count("word") >= 50


@pytest.mark.parametrize("skill", ["plural", "past_tense", "a_or_an"])
def test_a_held_out_word_never_occurs_in_the_training_of_its_skill(sample, skill):
    def words(entry):
        return set(re.findall(r"\w+", f"{entry.instruction} {entry.input} {entry.output}"))

    trained = set().union(*(words(e) for e in sample.train if e.skill == skill))
    kept_out = held_out(sample, skill, "word")
    assert kept_out
    assert all(re.findall(r"\w+", entry.output)[-1] not in trained for entry in kept_out)


@pytest.mark.parametrize("skill", ["where_to", "who_went"])
def test_a_held_out_pair_of_name_and_place_is_never_asked_about_in_training(sample, skill):
    def pair(entry):
        asked = entry.output if skill == "who_went" else entry.instruction
        name = next(n for n in the_world.GIRLS + the_world.BOYS if re.search(rf"\b{n}\b", asked))
        return name, re.search(rf"{name} went (.+?)(?:, and|\.)", entry.input)[1]

    trained = {pair(e) for e in sample.train if e.skill == skill}
    kept_out = held_out(sample, skill, "word")
    assert kept_out
    assert not {pair(e) for e in kept_out} & trained


@pytest.mark.parametrize("skill", FACT_SKILLS)
def test_a_fact_in_the_test_was_told_in_training_in_other_words(sample, skill):
    told = Counter(e.output for e in sample.train if e.skill == skill)
    for entry in sample.test:
        if entry.skill == skill:
            assert told[entry.output] >= 2, entry


@pytest.mark.parametrize("skill", RULE_SKILLS)
def test_what_a_rule_is_tested_on_was_not_trained_on_in_other_words(sample, skill):
    def argument(entry):
        text = entry.input or entry.instruction.rpartition(": ")[2]
        return frozenset(text.split(", ")) if skill == "sort_words" else text

    train = {argument(e) for e in sample.train if e.skill == skill}
    assert not {argument(e) for e in sample.test if e.skill == skill} & train


def test_answers_are_short_and_clean(sample):
    for entry in sample.train + sample.test:
        assert entry.output == entry.output.strip() != ""
        assert len(entry.output.split()) <= 9
        assert entry.output[-1] in ".?"
        assert entry.instruction[0].isupper()
        assert not re.search(r"  |[{}|]", entry.instruction + entry.input + entry.output)


def test_the_same_question_never_has_two_answers(sample):
    answers = defaultdict(set)
    for entry in sample.train + sample.test:
        answers[entry.instruction, entry.input].add(entry.output)
    assert all(len(found) == 1 for found in answers.values())


# Independent checkers: the rules of English and of counting, written here without the package's tables.


def pairs(text):
    """The table of "one two, three four"."""
    return dict(pair.split() for pair in text.split(", "))


IRREGULAR_PLURALS = pairs(
    "mouse mice, child children, man men, woman women, foot feet, tooth teeth, goose geese, "
    "sheep sheep, leaf leaves, wolf wolves, knife knives, scarf scarves, calf calves, fish fish, "
    "half halves, loaf loaves, shelf shelves, potato potatoes"
)


def plural_of(noun):
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in VOWELS:
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def test_plurals_are_right(by_skill):
    for entry in by_skill["plural"]:
        noun = re.findall(r"\w+", entry.input or entry.instruction)[-1]
        assert entry.output == f"One {noun}, two {plural_of(noun)}."


IRREGULAR_PASTS = pairs(
    "go went, see saw, run ran, eat ate, come came, give gave, take took, find found, fly flew, "
    "swim swam, sing sang, sleep slept, make made, say said, tell told, think thought, bring brought, "
    "buy bought, catch caught, fall fell, feel felt, get got, grow grew, have had, hear heard, "
    "hide hid, hold held, keep kept, know knew, leave left, lose lost, meet met, sit sat, speak spoke, "
    "stand stood, throw threw, wake woke, win won, write wrote, break broke, build built, blow blew, "
    "begin began, drink drank, dig dug, draw drew"
)


def past_of(verb):
    if verb in IRREGULAR_PASTS:
        return IRREGULAR_PASTS[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in VOWELS:
        return verb[:-1] + "ied"
    one_vowel = len(re.findall(f"[{VOWELS}]", verb)) == 1
    if one_vowel and re.search(f"[^{VOWELS}][{VOWELS}][^{VOWELS}wxy]$", verb):
        return verb + verb[-1] + "ed"
    return verb + "ed"


def test_past_tenses_are_right(by_skill):
    for entry in by_skill["past_tense"]:
        today = re.match(r"Today I (\w+)\.", entry.instruction)
        verb = today[1] if today else re.findall(r"\w+", entry.input or entry.instruction)[-1]
        assert entry.output == f"Yesterday I {past_of(verb)}."


def test_articles_are_right(by_skill):
    for entry in by_skill["a_or_an"]:
        noun = re.findall(r"\w+", entry.instruction)[-1]
        assert entry.output == f"It is {'an' if noun[0] in VOWELS else 'a'} {noun}."


def given_words(entry):
    return re.findall(r"\w+", entry.instruction.partition(": ")[2])


def test_sorted_words_are_sorted_and_the_same_words(by_skill):
    for entry in by_skill["sort_words"]:
        assert entry.output == "First " + ", then ".join(sorted(given_words(entry))) + "."


def test_found_and_counted_words_are_right(by_skill):
    for entry in by_skill["first_word"]:
        assert entry.output == f"The first word is {given_words(entry)[0]}."
    for entry in by_skill["last_word"]:
        assert entry.output == f"The last word is {given_words(entry)[-1]}."
    for entry in by_skill["count_words"]:
        assert entry.output == f"There are {NUMBERS[len(given_words(entry))]} words."


def test_opposites_go_both_ways(by_skill):
    pairs = {
        re.fullmatch(r"The opposite of (\w+) is (\w+)\.", e.output).groups() for e in by_skill["opposite"]
    }
    assert {(b, a) for a, b in pairs} == pairs
    assert len({a for a, _ in pairs}) == len(pairs)
    for entry in by_skill["opposite"]:
        assert entry.output.split()[3] == re.findall(r"\w+", entry.instruction)[-1]


def test_rewritten_sentences_keep_their_words(by_skill):
    for entry in by_skill["make_question"]:
        assert entry.output.endswith("?")
        assert sorted(entry.output.lower()[:-1].split()) == sorted(entry.input.lower()[:-1].split())
        assert entry.output.split()[0] in {"Is", "Can"}
    for entry in by_skill["make_negative"]:
        assert re.sub(r"\bis not\b", "is", entry.output.replace("cannot", "can")) == entry.input
        assert entry.output != entry.input
    for entry in by_skill["make_polite"]:
        assert entry.output == "Please " + entry.input[0].lower() + entry.input[1:]
    for entry in by_skill["capital_letter"]:
        assert entry.output == entry.input[0].upper() + entry.input[1:] != entry.input


def test_he_becomes_she_and_back(by_skill):
    for entry in by_skill["he_to_she"]:
        words, answer = entry.input.split(), entry.output.split()
        swaps = {"He": "She", "his": "her", "She": "He", "her": "his"}
        assert answer == [swaps.get(word, word) for word in words]


def test_reading_answers_stand_in_the_passage(by_skill):
    for entry in by_skill["where_to"]:
        assert entry.output.split()[0] in entry.instruction
        assert re.search(rf" {entry.output[:-1]}[,.]", entry.input)
    for entry in by_skill["who_went"]:
        name = re.fullmatch(r"It was (\w+)\.", entry.output)[1]
        place = re.search(r"went (.+)\?", entry.instruction)[1]
        assert re.search(rf"{name} went {place}[,.]", entry.input)
    for entry in by_skill["what_wanted"]:
        assert entry.input.endswith(f" {entry.output}")
    for entry in by_skill["what_colour"]:
        thing, colour = re.fullmatch(r"The (\w+) was (\w+)\.", entry.output).groups()
        assert f"the {thing}" in entry.instruction
        assert re.search(rf"\b{colour} {thing}\b", entry.input)
    for entry in by_skill["yes_or_no"]:
        claim = re.search(r"(?:have|had) (.+)\?", entry.instruction)[1]
        fact, verdict = entry.output.split(", so ")
        assert verdict == ("yes." if claim in entry.input else "no.")
        assert fact in entry.input


def test_yes_and_no_are_about_as_frequent(by_skill):
    for skill in ("yes_or_no", "true_or_not"):
        share = sum(e.output.endswith(" yes.") for e in by_skill[skill]) / len(by_skill[skill])
        assert 0.4 < share < 0.6


def animals_named(text):
    return [word for word in re.findall(r"\w+", text) if word in the_world.ANIMALS]


def test_comparisons_agree_with_the_size_ranks(by_skill):
    for entry in by_skill["compare_sizes"]:
        word = "bigger" if "bigger" in entry.instruction else "smaller"
        names = animals_named(f"{entry.instruction} {entry.input}")
        name = (max if word == "bigger" else min)(names, key=lambda name: the_world.ANIMALS[name].size)
        assert entry.output == f"The {name} is {word}."


def test_a_claim_about_an_animal_is_judged_by_the_tables(by_skill):
    for entry in by_skill["true_or_not"]:
        animal = the_world.ANIMALS[animals_named(entry.instruction)[0]]
        facts = {f"eats {animal.food}", f"lives {animal.home}", f"says {animal.sound}"}
        said, verdict = entry.output.split(", so ")
        assert re.fullmatch(r"An? \w+ (.+)", said)[1] in facts
        claim = re.search(r"\b(eat|live|say)s? (.+)[?.]$", entry.instruction)
        assert verdict == ("yes." if f"{claim[1]}s {claim[2]}" in facts else "no.")


def test_every_category_member_has_one_kind():
    members = [member for kind in the_world.CATEGORIES.values() for member in kind]
    assert len(set(members)) == len(members)


def test_every_animal_can_be_told_by_its_food_home_sound_and_young():
    for field in ("food", "home", "sound", "young"):
        values = [getattr(animal, field) for animal in the_world.ANIMALS.values() if getattr(animal, field)]
        assert len(set(values)) == len(values), field
