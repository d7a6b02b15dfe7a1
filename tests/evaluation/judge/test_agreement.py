"""A judge beside earlier scores."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.judge.agreement import agreement

stats = pytest.importorskip("scipy.stats", reason="SciPy is the reference; it comes with scikit-learn")
LLAMA = [85, 90, 40, 0, 100, 85, 60, None, 75, 20]
HUMAN = [80, 95, 30, 10, 100, 70, 60, 50, None, 20]


def test_the_correlations_equal_scipys_on_the_answers_that_both_scored():
    found = agreement(LLAMA, HUMAN)
    first, second = zip(*[pair for pair in zip(LLAMA, HUMAN) if None not in pair])
    assert found.n == 8
    assert found.pearson.value == pytest.approx(stats.pearsonr(first, second).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.kendall.value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert found.mean == sum(first) / 8
    assert found.record()["pearson"]["value"] == found.pearson.value


def test_one_shared_answer_is_too_few():
    with pytest.raises(DataError, match="found 1"):
        agreement([1, None, 3], [2, 2, None])
