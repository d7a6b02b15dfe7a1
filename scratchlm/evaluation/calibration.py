"""Is a probability to be believed? Of the texts called with 80 %, about 80 % should be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scratchlm.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The answers whose probability lies in one interval."""

    low: float  # above this
    high: float  # up to this
    n: int
    confidence: float | None  # their mean probability; None for an empty bin
    accuracy: float | None  # the share that was right


def reliability(
    confidences: Sequence[float], is_right: Sequence[bool], *, n_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Answers sorted into bins of equal width by the probability that they were given with.

    Raises: DataError for no answers, lists of different lengths, or a probability outside 0..1.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    probs, right = np.asarray(confidences, dtype=np.float64), np.asarray(is_right, dtype=bool)
    if len(probs) != len(right) or len(probs) == 0 or not ((probs >= 0) & (probs <= 1)).all():
        raise DataError(
            f"calibration needs a probability from 0 to 1 per answer, got {len(probs)} for {len(right)}; "
            "check the predictions."
        )
    place = np.clip(np.ceil(probs * n_bins).astype(int) - 1, 0, n_bins - 1)  # (low, high]; 0 in the first
    bins = []
    for i in range(n_bins):
        inside = place == i
        n = int(inside.sum())
        bins.append(
            ReliabilityBin(
                low=i / n_bins,
                high=(i + 1) / n_bins,
                n=n,
                confidence=float(probs[inside].mean()) if n else None,
                accuracy=float(right[inside].mean()) if n else None,
            )
        )
    return tuple(bins)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The mean distance between confidence and accuracy, each bin weighed by its answers.

    Units: 0 is perfect, 0.1 means ten percentage points off on average.
    Source: Naeini et al. 2015.
    """
    n = sum(one.n for one in bins)
    if n == 0:
        raise DataError("a calibration error needs answers, found none; check the predictions.")
    total = 0.0
    for one in bins:
        if one.confidence is not None and one.accuracy is not None:
            total += one.n * abs(one.confidence - one.accuracy)
    return total / n
