import random

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.instruction_split import (
    EntrySplit,
    count_leaks,
    drop_duplicates,
    duplicate_numbers,
    question_groups,
    split_in_order,
    split_leak_free,
)

WORDS = [
    "".join((a, b, c))
    for a in ("ba", "ce", "di")
    for b in ("fo", "gu", "ka")
    for c in ("le", "mi", "no", "pu")
]


def entry(instruction, output="yes", input_=""):
    return Instruction(instruction=instruction, input=input_, output=output)


def many(n=200):
    draw = random.Random(0)
    return [entry(" ".join(draw.choices(WORDS, k=6)), output=draw.choice(WORDS)) for _ in range(n)]


def test_what_repeats_an_earlier_entry_is_found():
    entries = [entry("Name a colour.", "Red"), entry("NAME a colour!!", "red."), entry("Name a town.", "Red")]
    assert duplicate_numbers(entries) == [1]
    assert drop_duplicates(entries) == [entries[0], entries[2]]


def test_entries_that_differ_in_a_number_are_different_exercises():
    entries = [entry("What is 3 + 4?", "7"), entry("What is 5 + 6?", "11"), entry("what is 3 + 4", "7")]
    assert duplicate_numbers(entries) == [2]
    assert len(set(question_groups(entries))) == 1  # but they ask nearly the same: one side of a split


def test_near_questions_stay_on_one_side_wherever_they_stand():
    entries = many()
    entries += [entry(e.instruction.upper() + "!", e.output) for e in entries[::5]]
    split = split_leak_free(entries)
    assert count_leaks(split) == 0
    assert sorted(map(repr, [*split.train, *split.val, *split.test])) == sorted(map(repr, entries))
    assert 0.78 < len(split.train) / len(entries) < 0.92
    random.Random(3).shuffle(entries)
    again = split_leak_free([*entries, *[entry("something new here", "x")]])
    assert {e for e in again.test if e.output != "x"} == set(split.test)


def test_leaks_are_counted():
    split = EntrySplit(
        train=[entry("Name a colour.")], val=[], test=[entry("name a colour"), entry("Name a city.")]
    )
    assert count_leaks(split) == 1


def test_a_part_without_entries_is_an_error():
    with pytest.raises(DataError, match="needs entries in each part, got none for"):
        split_leak_free([entry("one"), entry("two")])


def test_the_books_data_has_near_duplicates_on_both_sides_and_ours_has_not(real_data):
    entries = read_instructions(real_data / "instruction" / "instruction-data.json")
    book, ours = split_in_order(entries), split_leak_free(entries)
    assert count_leaks(book) > 0
    assert count_leaks(ours) == 0
    assert sum(map(len, (ours.train, ours.val, ours.test))) == 1100
    assert len(duplicate_numbers(entries)) == 34  # entry 323 asks word for word what 125 asks
