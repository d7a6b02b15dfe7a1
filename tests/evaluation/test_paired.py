"""Two models on the same items."""

import numpy as np
import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.paired import compare_paired, sign_test

stats = pytest.importorskip("scipy.stats", reason="SciPy is the reference; it comes with scikit-learn")


@pytest.mark.parametrize(
    ("up", "down"), [(0, 0), (1, 0), (9, 1), (5, 5), (40, 61), (700, 300), (50_300, 49_700)]
)
def test_the_sign_test_agrees_with_scipy(up, down):
    expected = stats.binomtest(up, up + down, 0.5).pvalue if up + down else 1.0
    assert sign_test(up, down) == pytest.approx(expected, rel=1e-9)


def test_the_interval_agrees_with_scipys_bootstrap():
    draw = np.random.default_rng(0)
    a = draw.normal(50, 10, 80)
    b = a + draw.normal(2, 5, 80)
    ours = compare_paired(list(a), list(b))
    scipys = stats.bootstrap(
        ((b - a),), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    width = scipys.high - scipys.low
    assert ours.low == pytest.approx(scipys.low, abs=0.1 * width)
    assert ours.high == pytest.approx(scipys.high, abs=0.1 * width)


def test_a_model_that_is_better_almost_everywhere_is_better():
    a = [50.0 + i % 7 for i in range(40)]
    b = [score + (5 if i % 8 else -1) for i, score in enumerate(a)]
    assert compare_paired(a, b).verdict == "B"
    assert compare_paired(b, a).verdict == "A"


def test_the_same_scores_cannot_be_told_apart():
    result = compare_paired([1, 2, 3], [1, 2, 3])
    assert (result.verdict, result.p_value, result.difference) == ("no significant difference", 1.0, 0.0)


def test_chance_is_called_a_difference_about_never_more_than_5_times_in_100():
    draw = np.random.default_rng(2)
    verdicts = [
        compare_paired(list(draw.normal(size=50)), list(draw.normal(size=50))).verdict for _ in range(200)
    ]
    assert (
        sum(verdict != "no significant difference" for verdict in verdicts) <= 16
    )  # 8 %, two standard errors above 5


def test_five_items_are_too_few_however_clear():
    assert compare_paired([0] * 5, [100] * 5).verdict == "no significant difference"
    assert compare_paired([0] * 6, [100] * 6).verdict == "B"


def test_lists_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="got 2 and 1"):
        compare_paired([1, 2], [1])
    with pytest.raises(DataError, match="got 0 and 0"):
        compare_paired([], [])
