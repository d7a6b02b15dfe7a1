"""Correlations, beside SciPy's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.evaluation.correlation import kendall, pearson, spearman

stats = pytest.importorskip("scipy.stats", reason="SciPy is the reference; it comes with scikit-learn")
OURS_AND_SCIPYS = [(pearson, stats.pearsonr), (spearman, stats.spearmanr), (kendall, stats.kendalltau)]


@pytest.mark.parametrize(("ours", "scipys"), OURS_AND_SCIPYS, ids=["pearson", "spearman", "kendall"])
@given(pairs=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=3, max_size=60))
def test_scores_of_0_to_100_agree_with_scipy_ties_included(ours, scipys, pairs):
    first, second = zip(*pairs)
    result = ours(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert result.value is None
    else:
        assert result.value == pytest.approx(scipys(first, second).statistic, abs=1e-12)


@pytest.mark.parametrize(("ours", "scipys"), OURS_AND_SCIPYS, ids=["pearson", "spearman", "kendall"])
@pytest.mark.parametrize("seed", range(5))
def test_long_lists_with_many_ties_agree_with_scipy(ours, scipys, seed):
    draw = np.random.default_rng(seed)
    first = draw.integers(0, 5, 400)
    second = first + draw.integers(-2, 3, 400)
    assert ours(first, second).value == pytest.approx(scipys(first, second).statistic, abs=1e-12)


def test_pearsons_interval_agrees_with_scipy():
    draw = np.random.default_rng(0)
    first = draw.normal(size=50)
    second = first + draw.normal(size=50)
    ours, scipys = pearson(first, second), stats.pearsonr(first, second).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=1e-9)


@pytest.mark.parametrize("ours", [pearson, spearman, kendall])
def test_the_interval_holds_the_true_value_about_95_times_in_100(ours):
    """Normal data of correlation 0.6: Spearman's true value is 6/pi asin(0.3), Kendall's 2/pi asin(0.6)."""
    true = {
        "pearson": 0.6,
        "spearman": 6 / math.pi * math.asin(0.3),
        "kendall": 2 / math.pi * math.asin(0.6),
    }[ours.__name__]
    draw = np.random.default_rng(1)
    n_inside = 0
    for _ in range(400):
        first = draw.normal(size=60)
        found = ours(first, 0.6 * first + 0.8 * draw.normal(size=60))
        n_inside += found.low <= true <= found.high
    assert 0.92 <= n_inside / 400 <= 0.98  # 400 draws: a standard error of 1.1 %


@pytest.mark.parametrize("ours", [pearson, spearman, kendall])
def test_equal_orders_are_1_opposite_ones_minus_1_and_constants_nothing(ours):
    assert ours([1, 2, 3, 4, 5], [10, 20, 30, 40, 50]).value == pytest.approx(1)
    assert ours([1, 2, 3, 4, 5], [50, 40, 30, 20, 10]).value == pytest.approx(-1)
    assert ours([1, 2, 3], [7, 7, 7]).value is None


@pytest.mark.parametrize(
    ("first", "second"),
    [([1, 2], [1]), ([1], [1]), ([], []), ([1, math.nan], [1, 2]), ([1, 2], [1, math.inf])],
)
def test_lists_that_do_not_fit_are_refused(first, second):
    with pytest.raises(DataError, match="a correlation needs"):
        pearson(first, second)
