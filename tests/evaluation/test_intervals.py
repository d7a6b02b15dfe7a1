"""Intervals of proportions, means, ratios and a few runs: as SciPy computes them."""

import tracemalloc

import numpy as np
import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.intervals import (
    bootstrap_interval,
    bootstrap_ratio_interval,
    mean_over_runs,
    student_t_975,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "n"), [(0, 1), (1, 1), (0, 10), (7, 10), (95, 100), (300, 300), (281, 300)]
)
def test_wilson_interval_agrees_with_scipy(right, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_bootstrap_interval_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.Generator(np.random.PCG64(1)).normal(5, 2, size=120)
    low, high = bootstrap_interval(values.tolist(), n_resamples=4000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.03)


def test_the_interval_of_many_values_needs_little_memory_and_is_the_same():
    values = np.random.Generator(np.random.PCG64(3)).normal(5, 2, size=20_000)
    draws = np.random.Generator(np.random.PCG64(0)).integers(0, len(values), size=(200, len(values)))
    at_once = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    tracemalloc.start()
    try:
        found = bootstrap_interval(values.tolist(), n_resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == tuple(at_once)
    assert peak < draws.nbytes  # 32 MB; with 2000 resamples 320


def test_the_interval_of_a_ratio_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.Generator(np.random.PCG64(1))
    counts = draw.integers(20, 60, size=200).astype(float)
    sums = counts * draw.normal(3, 0.5, size=200)
    low, high = bootstrap_ratio_interval(sums, counts, n_resamples=4000)
    expected = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=2,
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert bootstrap_ratio_interval(sums[:9], counts[:9]) is None


def test_blocks_beyond_a_thousand_are_joined_with_their_neighbours():
    draw = np.random.Generator(np.random.PCG64(1))
    counts, sums = draw.integers(20, 60, size=1000).astype(float), draw.normal(3, 0.5, size=1000)
    cut = bootstrap_ratio_interval(np.repeat(sums / 3, 3), np.repeat(counts / 3, 3))
    assert cut == pytest.approx(bootstrap_ratio_interval(sums, counts))


def test_intervals_of_nothing_are_errors():
    with pytest.raises(DataError):
        wilson_interval(0, 0)
    with pytest.raises(DataError):
        bootstrap_interval([])


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 29, 30, 199])
def test_students_points_are_scipys(degrees):
    from scipy import stats

    assert student_t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-12)


def test_a_few_runs_have_scipys_interval():
    from scipy import stats

    values = [0.91, 0.95, 0.93, 0.97]
    runs = mean_over_runs(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (runs.low, runs.high) == pytest.approx((low, high))
    assert runs.deviation == pytest.approx(np.std(values, ddof=1))
    with pytest.raises(DataError, match="at least 2 runs"):
        mean_over_runs([0.9])
