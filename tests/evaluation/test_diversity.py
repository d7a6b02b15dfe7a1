"""Repetition, on texts whose figures can be counted by hand."""

import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.diversity import diversity


def test_a_text_without_a_repetition():
    figures = diversity(["one two three four five"])
    assert (figures.distinct_1, figures.distinct_2, figures.distinct_3) == (1, 1, 1)
    assert (figures.repeated_4, figures.longest_repeat) == (0, 0)


def test_a_model_in_a_loop():
    figures = diversity(["the end " * 10])
    assert figures.distinct_1 == pytest.approx(2 / 20)
    assert figures.distinct_2 == pytest.approx(2 / 19)
    assert figures.repeated_4 == pytest.approx(1 - 2 / 17)
    assert figures.longest_repeat == 18


def test_distinct_is_over_all_texts_and_repetition_within_each():
    figures = diversity(["a b c d e", "a b c d e"])
    assert figures.distinct_1 == 0.5
    assert figures.repeated_4 == 0


def test_texts_that_are_too_short_have_no_figure():
    figures = diversity(["", "a b"])
    assert (figures.distinct_2, figures.distinct_3, figures.repeated_4) == (1, None, None)


def test_no_texts_are_an_error():
    with pytest.raises(DataError, match="at least one text"):
        diversity([])
