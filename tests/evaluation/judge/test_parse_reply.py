"""The strict reading of replies: the forms, and nothing beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.evaluation.judge.parse_reply import (
    occurs_in,
    read_coded_list,
    read_coded_number,
    read_coded_word,
    read_number,
    without_thoughts,
)

CODE = "qwrtzpsd"
FORMS = ["{}", "{}/100", "Score: {}", "score:{}/100", '{{"score": {}}}', ' {{ "SCORE":{} }}\n', "\n {} \t"]
NO_SCORES = [
    *("", "NaN", "nan", "Infinity", "-5", "+5", "85.5", "85.0"),
    *("85.", "1e2", "085", "101", "1000", "99999999999"),
    *("85 90", "85, 90", "85-90", "85\n90", "I would say 85"),
    *("85 points", "Score: high", "85/10", "85 / 1000"),
    *("Score: 85 out of 100", "**85**", "eighty-five", "٨٥"),
    *("８５", "8 5", '{"score": "85"}', '{"score": 85.5}'),
    *('{"score": 85, "why": "good"}', '{"score": 85}{"score": 85}'),
    *("[85]", "85%", "0x55", "Score = 85", "`85`"),
    "85" + " " * 3000 + "x",
]


@given(st.integers(0, 100), st.sampled_from(FORMS))
def test_each_form_gives_its_number(number, form):
    assert read_number(form.format(number), low=0, high=100) == number


@pytest.mark.parametrize("reply", NO_SCORES)
def test_everything_else_is_no_score(reply):
    assert read_number(reply, low=0, high=100) is None
    assert read_coded_number(reply, code=CODE, low=0, high=100) is None


@given(st.text())
def test_any_reply_gives_a_number_of_the_scale_or_none(reply):
    number = read_number(reply, low=1, high=10)
    assert number is None or (1 <= number <= 10 and str(number) in reply)


@given(st.integers())
def test_only_numbers_of_the_scale_are_read(number):
    assert read_number(str(number), low=1, high=10) == (number if 1 <= number <= 10 else None)


@pytest.mark.parametrize(
    "form", ["{code}: {n}", "Score for item {code}: {n}", "score for item  {code}:{n}/100\n"]
)
def test_a_coded_line_gives_its_number(form):
    reply = form.format(code=CODE, n=85)
    assert read_coded_number(reply, code=CODE, low=0, high=100) == 85
    assert read_coded_number(reply, code="bcdfghjk", low=0, high=100) is None
    assert read_coded_number(f"{reply}\nand so on", code=CODE, low=0, high=100) is None


@pytest.mark.parametrize("word", ["A", "B", "tie"])
def test_a_coded_verdict_is_one_of_the_words(word):
    words = ("A", "B", "tie")
    assert read_coded_word(f"Verdict for item {CODE}: {word.upper()}", code=CODE, words=words) == word
    for reply in (
        word,
        f"Verdict: {word}",
        f"{CODE}: {word}{word}",
        f"{CODE}: X",
        f"Verdict for item {CODE}: X",
    ):
        assert read_coded_word(reply, code=CODE, words=words) is None


def test_a_coded_list_is_whole_and_in_order():
    assert read_coded_list(f"{CODE} 1: yes\n{CODE} 2: No\n", code=CODE, n=2) == [True, False]
    for reply in (
        f"{CODE} 1: yes",
        f"{CODE} 2: yes\n{CODE} 1: no",
        f"{CODE} 1: yes\n{CODE} 2: X",
        f"{CODE} 1: yes\n{CODE} 2: no\n{CODE} 3: no",
        "1: yes\n2: no",
        "yes\nno",
    ):
        assert read_coded_list(reply, code=CODE, n=2) is None


@pytest.mark.parametrize(
    "text", ["100", "1100", "x100y", "１００", "١٠٠", "1\u200b00", "①00", "Score: 100/100", "10 0", "1\n0\n0"]
)
def test_a_number_is_found_in_a_text_however_it_is_written(text):
    assert occurs_in(100, ["", text])


def test_a_number_that_is_not_there_is_not_found():
    assert not occurs_in(100, ["1 and 10", "one hundred", "001", ""])


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("<think>70? 80?</think>85", "85"),
        ("\n<think>\n\n</think>\n\nScore: 85\n", "Score: 85\n"),
        ("<think>a</think><think>b</think>85", "<think>b</think>85"),  # one block, no more
        ("85<think>a</think>", "85<think>a</think>"),  # and it leads
        ("a</think>85", "a</think>85"),
        ("<think>85", ""),
        ("85", "85"),
    ],
)
def test_one_leading_block_of_thoughts_is_no_part_of_a_reply(reply, rest):
    assert without_thoughts(reply) == rest
