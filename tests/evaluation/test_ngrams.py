"""N-grams as numbers: equal where the n-grams are, different where they are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.evaluation.ngrams import NGrams, is_among, longest_repeat

ROWS = st.lists(st.integers(0, 3), max_size=40)


@given(ROWS, st.integers(1, 6))
def test_numbers_are_equal_exactly_where_the_ngrams_are(row, n):
    numbers = NGrams(row).all(n).tolist()
    grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
    assert len(numbers) == len(grams)
    assert len(set(zip(numbers, grams))) == len(set(numbers)) == len(set(grams))


@given(ROWS, ROWS, st.integers(1, 4))
def test_rows_share_numbers_exactly_where_they_share_ngrams(one, other, n):
    a, b = NGrams(one), NGrams(other)
    shared = {tuple(one[i : i + n]) for i in range(len(one) - n + 1)}
    shared &= {tuple(other[i : i + n]) for i in range(len(other) - n + 1)}
    assert len(set(a.all(n).tolist()) & set(b.all(n).tolist())) == len(shared)


def test_some_places_have_the_numbers_that_all_places_have():
    grams = NGrams(np.arange(50) % 7)
    starts = np.array([3, 0, 40])
    assert (grams.at(starts, 5) == grams.all(5)[starts]).all()


@given(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 50)))
def test_membership_is_that_of_numpy(numbers, wanted):
    many, few = np.array(numbers, dtype=np.uint64), np.unique(np.array(wanted, dtype=np.uint64))
    assert (is_among(many, few) == np.isin(many, few)).all()


@given(ROWS)
def test_the_longest_repeat_is_the_one_found_by_trying_all(row):
    def is_repeated(n):
        grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        return len(set(grams)) < len(grams)

    assert longest_repeat(row) == max((n for n in range(1, len(row)) if is_repeated(n)), default=0)


@pytest.mark.parametrize(("row", "length"), [([], 0), ([1], 0), ([1, 1], 1), ([1, 1, 1, 1], 3)])
def test_short_rows_have_short_repeats(row, length):
    assert longest_repeat(row) == length
