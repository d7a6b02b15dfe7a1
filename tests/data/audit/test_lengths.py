import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.data.audit.lengths import MAX_BINS, Lengths, histogram

values = st.lists(st.integers(0, 100_000), min_size=1, max_size=200)


def collected(numbers) -> Lengths:
    lengths = Lengths()
    for number in numbers:
        lengths.add(number)
    return lengths


@given(values)
def test_the_bins_hold_every_text_once_and_where_it_belongs(numbers):
    found = histogram(numbers)
    assert sum(found["counts"]) == len(numbers)
    assert len(found["edges"]) == len(found["counts"]) <= MAX_BINS + 2
    for edge, n in zip(found["edges"][: -1 if found["is_open"] else None], found["counts"]):
        assert n == sum(edge <= number < edge + found["width"] for number in numbers)


@given(values)
def test_the_summary_agrees_with_numpy(numbers):
    summary = collected(numbers).summary()
    assert (summary["n"], summary["total"]) == (len(numbers), sum(numbers))
    assert (summary["min"], summary["max"]) == (min(numbers), max(numbers))
    assert summary["median"] == np.quantile(numbers, 0.5, method="lower")
    assert np.isclose(summary["mean"], np.mean(numbers))


def test_one_very_long_text_does_not_flatten_the_histogram():
    found = histogram([*range(30)] * 100 + [100_000])
    assert found["is_open"]
    assert found["counts"][-1] == 1
    assert found["width"] == 1


def test_truncation_counts_what_a_context_cuts_off():
    assert collected([5, 10, 11, 14]).truncation(10) == {
        "context_length": 10,
        "longer": 2,
        "share_longer": 0.5,
        "cut": 5,
        "share_cut": 5 / 40,
    }


def test_no_text_has_no_summary():
    assert Lengths().summary() is None
