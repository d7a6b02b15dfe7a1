"""The scores of a classifier: as scikit-learn computes them."""

import numpy as np
import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.confusion_matrix import score_classes


@pytest.mark.parametrize("n_classes", [2, 3, 20])
def test_scores_agree_with_scikit_learn(n_classes):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.Generator(np.random.PCG64(n_classes))
    true = random.integers(0, n_classes, size=200)
    predicted = np.where(random.random(200) < 0.6, true, random.integers(0, n_classes, size=200))
    labels = list(range(n_classes))
    scores = score_classes(true.tolist(), predicted.tolist(), classes=[str(label) for label in labels])
    assert np.array_equal(scores.confusion, metrics.confusion_matrix(true, predicted, labels=labels))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=0
    )
    assert [row.precision for row in scores.per_class] == pytest.approx(precision)
    assert [row.recall for row in scores.per_class] == pytest.approx(recall)
    assert [row.f1 for row in scores.per_class] == pytest.approx(f1)
    assert [row.support for row in scores.per_class] == support.tolist()
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(true, predicted))
    assert scores.macro_f1 == pytest.approx(np.mean(f1))


def test_a_class_that_is_never_predicted_scores_zero():
    scores = score_classes([0, 0, 1], [0, 0, 0], classes=["ham", "spam"])
    assert (scores.per_class[1].precision, scores.per_class[1].recall, scores.per_class[1].f1) == (
        0.0,
        0.0,
        0.0,
    )


def test_scoring_nothing_is_an_error():
    with pytest.raises(DataError):
        score_classes([], [], classes=["a", "b"])


@pytest.mark.parametrize(("true", "predicted"), [([0, -1], [0, 1]), ([0, 1], [-1, 1]), ([2], [0])])
def test_a_number_that_no_class_has_is_not_counted_as_another(true, predicted):
    with pytest.raises(DataError, match="class numbers from 0 to 1"):
        score_classes(true, predicted, classes=["ham", "spam"])
