"""Compare two models on the same items with a paired bootstrap of the mean difference and a sign test."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scratchlm.core.errors import DataError
from scratchlm.evaluation.intervals import bootstrap_interval

TIED = "no significant difference"
LEVEL = 0.05  # significance level of the sign test; the interval is a 95 % one


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Scores of B compared with those of A, item by item."""

    n: int
    mean_a: float
    mean_b: float
    difference: float  # B - A
    low: float  # 95 % paired-bootstrap interval of the difference
    high: float
    higher: int  # items where B scores higher than A
    equal: int
    lower: int
    p_value: float  # two-sided sign test

    @property
    def verdict(self) -> str:
        """`A` or `B` when both the interval and the sign test show a difference, else `no significant difference`.

        The interval alone is too narrow for a few items; the sign test alone ignores the size of the difference.
        """
        if self.p_value < LEVEL and self.low > 0 and self.higher > self.lower:
            return "B"
        if self.p_value < LEVEL and self.high < 0 and self.lower > self.higher:
            return "A"
        return TIED

    @property
    def is_significant(self) -> bool:
        """Whether one of the two scores significantly higher."""
        return self.verdict != TIED


def compare_paired(a: Sequence[float], b: Sequence[float]) -> PairedComparison:
    """Paired bootstrap of the mean difference, and the sign test, over scores of the same items in the same order.

    Raises: DataError for lists of unequal length, or empty ones.

    Example:
        >>> compare_paired([50, 60, 70], [51, 59, 70]).verdict
        'no significant difference'
    """
    if len(a) != len(b) or not a:
        raise DataError(
            f"a comparison needs both scores of each item, got {len(a)} and {len(b)}; score the same items with both."
        )
    differences = [float(y) - float(x) for x, y in zip(a, b)]
    low, high = bootstrap_interval(differences)
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    n = len(differences)
    return PairedComparison(
        n=n,
        mean_a=math.fsum(a) / n,
        mean_b=math.fsum(b) / n,
        difference=math.fsum(differences) / n,
        low=low,
        high=high,
        higher=higher,
        equal=n - higher - lower,
        lower=lower,
        p_value=sign_test(higher, lower),
    )


def sign_test(n_up: int, n_down: int) -> float:
    """Two-sided p-value of the sign test: how likely a split at least as uneven is if both sides are equal.

    Source: agrees with `scipy.stats.binomtest(n_up, n_up + n_down, 0.5).pvalue`.

    Example:
        >>> sign_test(9, 1)
        0.021484375
    """
    n = n_up + n_down
    ways = tail = 1  # binomial coefficient of 0 of n
    for k in range(min(n_up, n_down)):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return float(min(1.0, 2 * tail / (1 << n)))
