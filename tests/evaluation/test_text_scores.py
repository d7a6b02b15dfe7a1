"""The final number of a solution, and the overlap of an answer with its reference."""

import re
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.evaluation.text_scores import (
    edit_distance,
    exact_match,
    final_number,
    marked_number,
    normalize_answer,
    rouge_l,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He earns 8*9=<<8*9=72>>72 dollars.\n#### 72", "72"),
        ("#### 1,234,567", "1234567"),
        ("####-5", "-5"),
        ("#### $18.00 a day", "18"),
        ("The answer is $1,234.50.", "1234.5"),
        ("So 3 + 4 = 7 apples.", "7"),
        ("10-5 is 5", "5"),
        ("It falls by 10 to -5.", "-5"),
        ("minus: \u22125 \u00b0C", "-5"),
        ("-$20", "-20"),
        ("$-20", "-20"),
        ("(12)-7", "7"),
        ("0.5%", "0.5"),
        (".25 of it", "0.25"),
        ("version 1.2.3", "3"),
        ("3,4", "4"),
        ("1,00,000 rupees", "100000"),
        ("#### 1e3", "1000"),
        ("about 2.5E-3 m.", "0.0025"),
        ("1e3rd", "3"),
        ("#### 1.000.000", "1000000"),
        ("1.000.000,50 in all.", "1000000.5"),
        ("1.000 is one", "1"),
        ("#### 1'000'000", "1000000"),
        ("12\u202f345 \u20ac", "12345"),
        ("#### 72\nQuestion: how many are 5?", "72"),
        ("#### none, so 7", "7"),
        ("#### Step 1: Add.\n6 + 66 = 72 clips", "72"),  # a heading
        ("#### Step 1: Add.\n#### **72**\nor 73?", "72"),
        ("no number", None),
        ("", None),
    ],
)
def test_the_final_number_of_a_solution_is_found(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_the_final_number_is_the_harness_one_wherever_both_mean_the_same_digits():
    """lm-evaluation-harness's gsm8k: its two regular expressions, and what it removes before it compares."""

    def cleaned(text):
        return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", re.sub(r"[,$]", "", text)))

    flexible = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
    strict = re.compile(r"#### (\-?[0-9\.\,]+)")
    for number in ("7", "72", "-5", "1,234", "$1,234.50", "18.25", "0.5", "100000"):
        for frame in ("The answer is {}.", "So 3 and 4 make {} apples", "2+2=4\n#### {}", "x\n\n{}"):
            text = frame.format(number)
            theirs = ["".join(found) for found in flexible.findall(text)][-1]
            assert final_number(text) == Decimal(cleaned(theirs))
            if (found := strict.search(text)) is not None:
                assert marked_number(text) == Decimal(cleaned(found[1]))


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("cold", "cold", True),
        (" Cold.\n", "cold", True),
        ("the  cat", "The cat!", True),
        ("ice cold", "cold", False),
        ("", "", False),
        ("   ", "...", False),
        ("don't", "dont", False),
    ],
)
def test_exact_match_folds_only_what_changes_no_answer(answer, reference, same):
    assert exact_match(answer, reference) is same


@given(st.text(max_size=40), st.text(max_size=40))
def test_token_f1_is_symmetric_and_between_zero_and_one(one, other):
    value = token_f1(one, other)
    assert 0.0 <= value <= 1.0
    assert value == token_f1(other, one)


@given(st.text(alphabet="abc ", min_size=1, max_size=20).filter(lambda text: text.strip()))
def test_a_text_overlaps_fully_with_itself(text):
    assert token_f1(text, text) == 1.0
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


@pytest.mark.parametrize(
    ("answer", "reference", "f"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("the gunman kill police", "police kill the gunman", 2 / 4),
        ("the gunman police killed", "police killed the gunman", 2 / 4),
        ("cold", "cold", 1.0),
        ("Cold!", "cold", 1.0),
        ("hot", "cold", 0.0),
        ("", "cold", 0.0),
        ("", "", 0.0),
        ("a b c d", "b d", 2 * 2 / 6),
    ],
)
def test_rouge_l_is_that_of_its_paper(answer, reference, f):
    assert rouge_l(answer, reference) == pytest.approx(f)


@settings(deadline=None)  # the first call imports the package
@given(st.text("ab _-x9 \n", max_size=60), st.text("ab _-x9 \n", max_size=60))
def test_rouge_l_agrees_with_rouge_score(answer, reference):
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    expected = scorer.RougeScorer(["rougeL"], use_stemmer=False).score(reference, answer)["rougeL"].fmeasure
    assert rouge_l(answer, reference) == pytest.approx(expected)


def plain_distance(one: str, other: str) -> int:
    """The table of Wagner and Fischer 1974, cell by cell."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]


@given(st.text("abc\u00e9", max_size=80), st.text("abc\u00e9", max_size=80))
def test_edit_distance_agrees_with_the_plain_table(one, other):
    longest = max(len(one), len(other), 1)
    assert edit_distance(one, other) == pytest.approx(plain_distance(one, other) / longest)
    assert edit_distance(one, other) == edit_distance(other, one)


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_detour_is_never_shorter(one, other, third):
    def n_edits(a, b):
        return round(edit_distance(a, b) * max(len(a), len(b)))

    assert n_edits(one, third) <= n_edits(one, other) + n_edits(other, third)
    assert (edit_distance(one, other) == 0.0) == (one == other)


def test_long_answers_are_compared_too():
    random = np.random.Generator(np.random.PCG64(5))
    one, other = ("".join(random.choice(list("abcdefgh "), size=2000)) for _ in range(2))
    assert edit_distance(one, other) == pytest.approx(plain_distance(one, other) / 2000)
    assert edit_distance(one, one + "!") == pytest.approx(1 / 2001)
