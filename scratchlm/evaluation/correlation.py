"""Correlate two lists of scores for the same items: Pearson, Spearman and Kendall, with intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import DataError
from scratchlm.evaluation.intervals import Z_95

Floats = NDArray[np.float64]
Variance = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A coefficient from -1 to 1 and its 95 % interval; None where a list is constant or too short."""

    value: float | None
    low: float | None
    high: float | None


def pearson(first: Sequence[float], second: Sequence[float]) -> Correlation:
    """Pearson's coefficient of linear correlation.

    Source: agrees with `scipy.stats.pearsonr`; the interval is Fisher's z with variance 1 / (n - 3).
    Raises: DataError for lists of unequal length, of fewer than two, or with a value that is not finite.

    Example:
        >>> round(pearson([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).value, 3)
        0.9
    """
    x, y = _checked(first, second)
    return _with_interval(_pearson(x, y), n=len(x), spare=3, variance=lambda r: 1.0)


def spearman(first: Sequence[float], second: Sequence[float]) -> Correlation:
    """Spearman's rank correlation: Pearson's coefficient of the ranks; equal scores share their mean rank.

    Source: agrees with `scipy.stats.spearmanr`; the interval's variance is (1 + r**2 / 2) / (n - 3) on Fisher's scale
    (Bonett & Wright 2000).
    Raises: DataError as `pearson`.
    """
    x, y = _checked(first, second)
    return _with_interval(_pearson(_ranks(x), _ranks(y)), n=len(x), spare=3, variance=lambda r: 1 + r * r / 2)


def kendall(first: Sequence[float], second: Sequence[float]) -> Correlation:
    """Kendall's tau-b, which allows for ties: the excess of pairs in the same order over pairs in the opposite one.

    Source: agrees with `scipy.stats.kendalltau`; the interval's variance is 0.437 / (n - 4) on Fisher's scale
    (Fieller, Hartley & Pearson 1957).
    Raises: DataError as `pearson`.
    """
    x, y = _checked(first, second)
    agreement = n_x = n_y = 0.0
    for i in range(len(x) - 1):  # one row of pairs at a time
        step_x, step_y = np.sign(x[i + 1 :] - x[i]), np.sign(y[i + 1 :] - y[i])
        agreement += float((step_x * step_y).sum())
        n_x += float(np.abs(step_x).sum())
        n_y += float(np.abs(step_y).sum())
    tau = agreement / math.sqrt(n_x) / math.sqrt(n_y) if n_x and n_y else None
    return _with_interval(tau, n=len(x), spare=4, variance=lambda r: 0.437)


def _with_interval(value: float | None, *, n: int, spare: int, variance: Variance) -> Correlation:
    if value is None or n <= spare or abs(value) >= 1:
        return Correlation(value=value, low=value if n > spare else None, high=value if n > spare else None)
    centre, half = math.atanh(value), Z_95 * math.sqrt(variance(value) / (n - spare))
    return Correlation(value=value, low=math.tanh(centre - half), high=math.tanh(centre + half))


def _pearson(x: Floats, y: Floats) -> float | None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()  # so that their squares neither underflow nor overflow
    return float(np.clip((x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def _ranks(values: Floats) -> Floats:
    """Ranks from 1 for the lowest; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def _checked(first: Sequence[float], second: Sequence[float]) -> tuple[Floats, Floats]:
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(x) != len(y) or len(x) < 2:
        raise DataError(
            f"a correlation needs two lists of the same length, at least 2, got {len(x)} and {len(y)} scores; "
            "give both lists for the same items."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(
            "a correlation needs finite scores, got NaN or infinity; remove them from both lists."
        )
    return x, y
