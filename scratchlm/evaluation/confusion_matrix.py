"""Score a classifier: accuracy, confusion matrix, precision, recall and F1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scratchlm.core.errors import DataError
from scratchlm.evaluation.intervals import wilson_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """The scores of one class; a ratio with denominator 0 is 0, as in scikit-learn."""

    label: str
    precision: float  # share of the items predicted as this class that belong to it
    recall: float  # share of this class's items that were predicted as it
    f1: float  # harmonic mean of the two
    support: int  # number of items of this class


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationScores:
    """A classifier's scores over a set of items."""

    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # confusion matrix; rows: actual class, columns: predicted class

    @property
    def n(self) -> int:
        """Number of items."""
        return sum(map(sum, self.confusion))

    @property
    def n_right(self) -> int:
        """Number of correct predictions."""
        return sum(self.confusion[i][i] for i in range(len(self.classes)))

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.n_right / self.n

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the classes' recall: always guessing one class of C gives 1 / C.

        Source: agrees with scikit-learn's `balanced_accuracy_score`; a class without items is left out.
        """
        return float(np.mean([scores.recall for scores in self.per_class if scores.support]))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson_interval(self.n_right, self.n)

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes, each with the same weight."""
        return float(np.mean([scores.f1 for scores in self.per_class]))

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Precision, recall and F1 of each class."""
        matrix = np.asarray(self.confusion)
        scores = []
        for i, label in enumerate(self.classes):
            hits, predicted, support = int(matrix[i, i]), int(matrix[:, i].sum()), int(matrix[i].sum())
            scores.append(
                ClassScores(
                    label=label,
                    precision=hits / predicted if predicted else 0.0,
                    recall=hits / support if support else 0.0,
                    f1=2 * hits / (predicted + support) if predicted + support else 0.0,
                    support=support,
                )
            )
        return tuple(scores)


def score_classes(
    true: Sequence[int], predicted: Sequence[int], *, classes: Sequence[str]
) -> ClassificationScores:
    """Compare predicted with actual class numbers.

    Source: agrees with scikit-learn's `confusion_matrix` and `precision_recall_fscore_support`.
    Raises: DataError when the lists differ in length or are empty, or contain a number that no class has.
    """
    if len(true) != len(predicted) or len(true) == 0:
        raise DataError(
            f"scoring needs a prediction per item, got {len(predicted)} for {len(true)}; check the data."
        )
    outside = [number for number in (*true, *predicted) if not 0 <= number < len(classes)]
    if outside:
        raise DataError(
            f"scoring needs class numbers from 0 to {len(classes) - 1}, got {outside[0]}; check the labels."
        )
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (np.asarray(true), np.asarray(predicted)), 1)
    return ClassificationScores(classes=tuple(classes), confusion=tuple(map(tuple, matrix.tolist())))
