"""The number that a solution comes to; the overlaps of words are tested with the scores that use them."""

import re
from decimal import Decimal

import pytest

from scratchlm.evaluation.text_scores import final_number, marked_number


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
        ("#### 72\nQuestion: how many are 5?", "72"),
        ("#### none, so 7", "7"),
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
