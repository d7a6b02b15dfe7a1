import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.data.packing import pack, pack_rows

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(40, 100))
def test_every_text_is_in_one_row_and_no_row_overflows(lengths, capacity):
    rows = pack_rows(lengths, capacity=capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= capacity
    assert all(rows)


@given(LENGTHS, st.integers(40, 100))
def test_rows_are_few_and_never_worse_than_first_fit(lengths, capacity):
    rows = pack_rows(lengths, capacity=capacity)
    first_fit: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = next((i for i, used in enumerate(first_fit) if used + length <= capacity), None)
        if place is None:
            first_fit.append(length)
        else:
            first_fit[place] += length
    assert len(rows) <= 2 * len(first_fit)
    n_positions = len(rows) * max(sum(lengths[i] for i in row) for row in rows)
    assert n_positions <= len(first_fit) * max(first_fit)


def test_many_texts_are_packed_in_a_time_that_grows_with_their_number():
    random_ = random.Random(1)
    lengths = [random_.randint(5, 250) for _ in range(20_000)]
    started_at_s = time.process_time()
    rows = pack_rows(lengths, capacity=256)
    assert time.process_time() - started_at_s < 20  # about 2 s; it was cubic, and 1,000 texts took 6 s
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    n_positions = len(rows) * max(sum(lengths[i] for i in row) for row in rows)
    assert sum(lengths) / n_positions > 0.98


def test_rows_end_at_about_the_same_place():
    rows = pack_rows([50, 51, 52, 53, 54, 55, 56, 57], capacity=256)
    used = [sum(50 + i for i in row) for row in rows]
    assert len(rows) == 2  # first-fit alone would fill the first with 222 and leave 206
    assert max(used) - min(used) <= 4


def test_a_text_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match="at most 8 tokens, got one of 9"):
        pack_rows([3, 9], capacity=8)


def test_nothing_to_pack_is_no_row():
    assert pack_rows([], capacity=8) == []


def test_the_mask_numbers_the_texts_of_each_row():
    ids, mask = pack([[np.array([5, 6]), np.array([7])], [np.array([8, 9, 10, 11])]], value=-1)
    assert ids.tolist() == [[5, 6, 7, -1], [8, 9, 10, 11]]
    assert mask.tolist() == [[1, 1, 2, 0], [1, 1, 1, 1]]
