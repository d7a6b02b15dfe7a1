"""Compute 95 % confidence intervals for proportions and means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scratchlm.core.errors import DataError

Z_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
MIN_BLOCKS = 10  # with fewer, the variance between blocks is unknown
MAX_BLOCKS = 1000  # more cost memory without better results, so neighbours are joined
MAX_DRAWN = 1 << 20  # values drawn at a time: 8 MB of indices


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a proportion; valid also at 0 %, at 100 % and for few items.

    Source: Wilson 1927; agrees with `scipy.stats.binomtest(...).proportion_ci(method="wilson")`.
    Raises: DataError when n is zero or n_right is outside 0..n.

    Example:
        >>> low, high = wilson_interval(95, 100)
        >>> print(f"{low:.3f} {high:.3f}")
        0.888 0.978
    """
    if n < 1 or not 0 <= n_right <= n:
        raise DataError(f"a proportion needs 0 <= right <= n and n >= 1, got {n_right} of {n}; count again.")
    share = n_right / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    values: Sequence[float], *, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of a mean.

    Memory: about a million draws at a time, for any number of values.
    Source: Efron 1979.
    Raises: DataError for no values.
    """
    if len(values) == 0:
        raise DataError("a mean needs at least one value, got none; nothing was scored.")
    array = np.asarray(values, dtype=np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    n_at_once = max(1, MAX_DRAWN // len(array))
    means = np.empty(n_resamples)
    for first in range(0, n_resamples, n_at_once):
        part = means[first : first + n_at_once]
        part[:] = array[random.integers(0, len(array), size=(len(part), len(array)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_ratio_interval(
    sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], *, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % block-bootstrap interval of sum(sums) / sum(counts); a block holds neighbouring, correlated items.

    Blocks are drawn with replacement, each with its sum and its count; None for fewer than ten blocks.
    Source: Kuensch 1989, with blocks that do not overlap (Carlstein 1986).
    """
    if len(sums) < MIN_BLOCKS:
        return None
    n_joined = math.ceil(len(sums) / MAX_BLOCKS)
    starts = np.arange(0, len(sums), n_joined)
    sums, counts = np.add.reduceat(sums, starts), np.add.reduceat(counts, starts)
    draws = np.random.Generator(np.random.PCG64(seed)).integers(0, len(sums), size=(n_resamples, len(sums)))
    low, high = np.quantile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class MeanOverRuns:
    """A metric over several training runs that differ only in their seed."""

    mean: float
    deviation: float  # standard deviation of single runs
    low: float  # 95 % interval of the mean
    high: float
    n: int


def mean_over_runs(values: Sequence[float]) -> MeanOverRuns:
    """Mean, standard deviation and 95 % interval of a metric over a few runs.

    The interval is Student's t: 4.3 standard errors to either side with three runs, 2.05 with thirty.
    Source: agrees with `scipy.stats.t.interval`.
    Raises: DataError for fewer than two values.

    Example:
        >>> runs = mean_over_runs([0.95, 0.96, 0.97])
        >>> print(f"{runs.mean:.2f} {runs.deviation:.2f} {runs.low:.3f} {runs.high:.3f}")
        0.96 0.01 0.935 0.985
    """
    if len(values) < 2:
        raise DataError(
            f"a standard deviation needs at least 2 runs, got {len(values)}; train with more seeds."
        )
    array = np.asarray(values, dtype=np.float64)
    mean, deviation = float(array.mean()), float(array.std(ddof=1))
    half = student_t_975(len(array) - 1) * deviation / math.sqrt(len(array))
    return MeanOverRuns(mean=mean, deviation=deviation, low=mean - half, high=mean + half, n=len(array))


def student_t_975(degrees: int) -> float:
    """The 97.5 % quantile of Student's t with these degrees of freedom, by bisection of its CDF."""
    if degrees < 1:
        raise DataError(f"Student's t needs at least 1 degree of freedom, got {degrees}; add a run.")
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_t_below(middle, degrees) < 0.975 else (low, middle)
    return (low + high) / 2


def _student_t_below(t: float, degrees: int) -> float:
    """P(T <= t) for t >= 0, as finite sums of sines and cosines (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if is_odd else 2, degrees, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    within = 2 / math.pi * (angle + sine * total) if is_odd else sine * total
    return 0.5 + within / 2
