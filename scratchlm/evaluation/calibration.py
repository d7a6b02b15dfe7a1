"""Measure calibration: of predictions with a confidence of 80 %, 80 % should be correct."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scratchlm.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The predictions whose confidence is in one interval."""

    low: float  # exclusive
    high: float  # inclusive
    n: int
    confidence: float | None  # mean confidence; None for an empty bin
    accuracy: float | None  # share of correct predictions


def reliability(
    confidences: Sequence[float], is_right: Sequence[bool], *, n_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Sort predictions into bins of equal width by their confidence.

    Raises: DataError for no predictions, lists of different lengths, or a probability outside 0..1.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2.
    """
    probs, right = np.asarray(confidences, dtype=np.float64), np.asarray(is_right, dtype=bool)
    if len(probs) != len(right) or len(probs) == 0 or not ((probs >= 0) & (probs <= 1)).all():
        raise DataError(
            f"calibration needs a confidence from 0 to 1 per prediction, got {len(probs)} for {len(right)}; "
            "check the predictions."
        )
    place = np.clip(np.ceil(probs * n_bins).astype(int) - 1, 0, n_bins - 1)  # (low, high]; 0 in the first
    bins = []
    for i in range(n_bins):
        inside = place == i
        n = int(inside.sum())
        confidence, accuracy = (float(values[inside].mean()) if n else None for values in (probs, right))
        bins.append(
            ReliabilityBin(
                low=i / n_bins, high=(i + 1) / n_bins, n=n, confidence=confidence, accuracy=accuracy
            )
        )
    return tuple(bins)


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean |confidence - accuracy| over bins, weighted by their number of predictions.

    Units: 0 is perfect; 0.1 is a mean difference of ten percentage points.
    Source: Naeini et al. 2015.
    """
    n = sum(one.n for one in bins)
    if n == 0:
        raise DataError("a calibration error needs predictions, got none; check the data.")
    total = 0.0
    for one in bins:
        if one.confidence is not None and one.accuracy is not None:
            total += one.n * abs(one.confidence - one.accuracy)
    return total / n
