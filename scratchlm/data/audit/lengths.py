"""Measure the lengths of texts, and how much a given context length would cut off."""

import math
from array import array
from typing import Any

import numpy as np

MAX_BINS = 30
SHARE_IN_BINS = 0.995  # longer texts share the last bin


class Lengths:
    """The lengths of texts, at eight bytes of memory each.

    Units: tokens, or words without a tokenizer
    """

    def __init__(self) -> None:
        self._values = array("q")

    def add(self, length: int) -> None:
        """Add one text."""
        self._values.append(length)

    def summary(self) -> dict[str, Any] | None:
        """Total, mean, quantiles and histogram; None without texts."""
        if not self._values:
            return None
        values = np.frombuffer(self._values, dtype=np.int64)
        quantiles = np.quantile(values, (0, 0.5, 0.95, 0.99, 1), method="lower").tolist()
        return {
            "n": len(values),
            "total": int(values.sum()),
            "mean": float(values.mean()),
            **dict(zip(("min", "median", "p95", "p99", "max"), map(int, quantiles))),
            "histogram": histogram(values),
        }

    def truncation(self, context_length: int) -> dict[str, Any]:
        """How many texts are longer than the context, and what share of all text would be cut."""
        values = np.frombuffer(self._values, dtype=np.int64)
        over = np.maximum(values - context_length, 0)
        return {
            "context_length": context_length,
            "longer": int((over > 0).sum()),
            "share_longer": float((over > 0).mean()) if len(values) else 0.0,
            "cut": int(over.sum()),
            "share_cut": float(over.sum() / max(1, values.sum())),
        }


def histogram(values: Any) -> dict[str, Any]:
    """Count lengths in bins of one round width from 0; an open last bin has no upper end.

    `edges` has the lower end of each bin.

    Example:
        >>> histogram([1, 2, 2, 7])
        {'width': 1, 'edges': [0, 1, 2, 3, 4, 5, 6, 7], 'counts': [0, 1, 2, 0, 0, 0, 0, 1], 'is_open': False}
    """
    values = np.asarray(values)
    reach = int(np.quantile(values, SHARE_IN_BINS, method="higher"))
    width = _round_width((reach + 1) / MAX_BINS)
    n_bins = reach // width + 1
    is_open = int(values.max()) >= n_bins * width
    counts = np.bincount(np.minimum(values // width, n_bins - 1 + is_open), minlength=n_bins + is_open)
    edges = [i * width for i in range(n_bins + is_open)]
    return {"width": width, "edges": edges, "counts": [int(n) for n in counts], "is_open": is_open}


def _round_width(minimum: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 ... that is at least the minimum."""
    if minimum <= 1:
        return 1
    size = 10 ** math.floor(math.log10(minimum))
    return next(int(step * size) for step in (1, 2, 5, 10) if step * size >= minimum)
