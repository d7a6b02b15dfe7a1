"""Compute ROC and precision-recall curves, and the area under each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import DataError

MAX_POINTS = 200  # points kept of each curve for the report


@dataclass(frozen=True, kw_only=True)
class ClassCurves:
    """One class against all others."""

    label: str
    roc_auc: float | None  # None when all texts are of this class, or none is
    average_precision: float | None
    roc: tuple[tuple[float, float], ...]  # (false positive rate, true positive rate)
    precision_recall: tuple[tuple[float, float], ...]  # (recall, precision)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """ROC AUC and average precision of a classifier's probabilities, per class and on average."""

    roc_auc: float | None  # for the second of two classes, else the mean over the classes
    average_precision: float | None
    curves: tuple[ClassCurves, ...]


def rank_classes(
    true: Sequence[int], probabilities: Sequence[Sequence[float]], *, classes: Sequence[str]
) -> Ranking:
    """Compute each class's curves from the probabilities of all classes.

    Raises: DataError when a text has no probability for each class.
    """
    scores = np.asarray(probabilities, dtype=np.float64)  # (texts, C)
    if scores.shape != (len(true), len(classes)) or len(true) == 0:
        raise DataError(
            f"ranking needs {len(classes)} probabilities for each of {len(true)} texts, got {scores.shape}; "
            "check the predictions."
        )
    shown = [1] if len(classes) == 2 else range(len(classes))
    curves = tuple(_curves(np.asarray(true) == i, scores[:, i], label=classes[i]) for i in shown)
    return Ranking(
        roc_auc=_mean([curve.roc_auc for curve in curves]),
        average_precision=_mean([curve.average_precision for curve in curves]),
        curves=curves,
    )


def roc_curve(is_positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """False and true positive rates for decreasing thresholds, one point per distinct score.

    Source: agrees with scikit-learn's `roc_curve(..., drop_intermediate=False)`.
    """
    hits, others = _counts(is_positive, scores)
    return others / others[-1], hits / hits[-1]


def precision_recall_curve(
    is_positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Recall and precision for decreasing thresholds, beginning with the highest score.

    Source: agrees with scikit-learn's `precision_recall_curve` in reverse order.
    """
    hits, others = _counts(is_positive, scores)
    return hits[1:] / hits[-1], hits[1:] / (hits[1:] + others[1:])


def _curves(is_positive: NDArray[np.bool_], scores: NDArray[np.float64], *, label: str) -> ClassCurves:
    if is_positive.all() or not is_positive.any():
        return ClassCurves(label=label, roc_auc=None, average_precision=None, roc=(), precision_recall=())
    false_rate, true_rate = roc_curve(is_positive, scores)
    recall, precision = precision_recall_curve(is_positive, scores)
    return ClassCurves(
        label=label,
        roc_auc=float((np.diff(false_rate) * (true_rate[1:] + true_rate[:-1]) / 2).sum()),
        average_precision=float((np.diff(recall, prepend=0.0) * precision).sum()),
        roc=_thinned(false_rate, true_rate),
        precision_recall=_thinned(recall, precision),
    )


def _counts(is_positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Cumulative counts of positives and negatives from the highest score to the lowest."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last of each equal score
    hits = np.cumsum(is_positive[order])[ends]
    return np.insert(hits, 0, 0).astype(float), np.insert(ends + 1 - hits, 0, 0).astype(float)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(MAX_POINTS, len(x))).round().astype(int))
    return tuple((float(x[i]), float(y[i])) for i in chosen)
