"""Longest overlaps and novel n-grams, against trying everything."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.evaluation import memorization as module
from scratchlm.evaluation.memorization import memorization, word_rows

ROWS = st.lists(st.integers(0, 2), min_size=1, max_size=30)


def grams(row, n):
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]


def longest_by_trying(sample, training):
    lengths = (n for n in range(1, len(sample) + 1) if set(grams(sample, n)) & set(grams(training, n)))
    return max(lengths, default=0)


@given(st.lists(ROWS, min_size=1, max_size=4), ROWS)
def test_the_longest_overlap_is_the_one_found_by_trying_all(samples, training):
    found = memorization(samples, np.array(training))
    assert [o.length for o in found.overlaps] == [longest_by_trying(s, training) for s in samples]
    for overlap, sample in zip(found.overlaps, samples):
        mine = sample[overlap.sample_start :][: overlap.length]
        assert mine == training[overlap.training_start :][: overlap.length]


@given(st.lists(ROWS, min_size=1, max_size=4), ROWS)
def test_novel_five_grams_are_those_that_training_lacks(samples, training):
    found = memorization(samples, np.array(training))
    known = set(grams(training, 5))
    is_new = [gram not in known for sample in samples for gram in grams(sample, 5)]
    assert found.novel_share == (pytest.approx(sum(is_new) / len(is_new)) if is_new else None)


@given(st.lists(ROWS, min_size=1, max_size=3), ROWS, st.integers(1, 10))
def test_reading_the_training_text_in_stretches_changes_nothing(samples, training, at_once):
    whole = memorization(samples, np.array(training))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IDS_AT_ONCE", at_once)
        parts = memorization(samples, np.array(training))
    assert [o.length for o in parts.overlaps] == [o.length for o in whole.overlaps]
    assert (parts.novel, parts.novel_share) == (whole.novel, whole.novel_share)


def test_a_recited_text_is_all_known_and_a_new_one_all_novel():
    training = np.arange(1000)
    recited, new = np.arange(200, 260), np.arange(1000, 1060)
    found = memorization([recited, new], training)
    assert [o.length for o in found.overlaps] == [60, 0]
    assert found.overlaps[0].training_start == 200
    assert (found.novel, found.novel_share) == ((0.0, 1.0), 0.5)
    assert (found.longest, found.mean_longest) == (60, 30)


def test_ten_megabytes_of_text_take_seconds():
    draw = np.random.Generator(np.random.PCG64(0))
    training = (draw.zipf(1.3, size=3_000_000) % 30_000).astype(np.uint16)
    samples = [training[i : i + 150] for i in range(0, 200_000, 10_000)]
    samples = [np.concatenate([sample, sample[::-1]]) for sample in samples]
    started_at_s = time.perf_counter()
    found = memorization(samples, training)
    assert time.perf_counter() - started_at_s < 20  # measured: below 3
    assert all(overlap.length >= 150 for overlap in found.overlaps)


def test_words_match_across_pieces_but_not_across_documents():
    rows, training = word_rows(["a b c d"], [("x a b ", False), ("c y", True), ("d a", True)])
    assert [o.length for o in memorization(rows, training).overlaps] == [3]
    rows, training = word_rows(["y d"], [("c y", True), ("d a", True)])
    assert memorization(rows, training).longest == 1


def test_nothing_to_compare_is_an_error():
    with pytest.raises(DataError, match="0 samples"):
        memorization([], np.arange(5))
    with pytest.raises(DataError, match="0 ids"):
        memorization([[1]], np.arange(0))
