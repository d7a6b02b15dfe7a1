"""How far a figure can be trusted: intervals for proportions and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scratchlm.core.errors import DataError

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a proportion; sensible at 0 %, at 100 % and for few items.

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

    Source: Efron 1979.
    Raises: DataError for no values.
    """
    if len(values) == 0:
        raise DataError("a mean needs at least one value, found none; nothing was scored.")
    array = np.asarray(values, dtype=np.float64)
    draws = np.random.Generator(np.random.PCG64(seed)).integers(0, len(array), size=(n_resamples, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
