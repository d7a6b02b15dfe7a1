"""ROC and precision-recall, against scikit-learn, ties included."""

import numpy as np
import pytest
from sklearn import metrics

from scratchlm.core.errors import DataError
from scratchlm.evaluation.ranking import precision_recall_curve, rank_classes, roc_curve


@pytest.fixture(params=["ties", "no ties"])
def scored(request):
    draw = np.random.default_rng(1)
    is_positive = draw.uniform(size=300) < 0.3
    scores = draw.normal(size=300) + is_positive
    return is_positive, np.round(scores, 1) if request.param == "ties" else scores


def test_the_curves_are_scikit_learns(scored):
    is_positive, scores = scored
    false_rate, true_rate = roc_curve(is_positive, scores)
    theirs = metrics.roc_curve(is_positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, theirs[0])
    np.testing.assert_allclose(true_rate, theirs[1])
    recall, precision = precision_recall_curve(is_positive, scores)
    their_precision, their_recall, _ = metrics.precision_recall_curve(is_positive, scores)
    np.testing.assert_allclose(recall, their_recall[-2::-1][: len(recall)])
    np.testing.assert_allclose(precision, their_precision[-2::-1][: len(precision)])


def test_the_areas_are_scikit_learns(scored):
    is_positive, scores = scored
    probs = 1 / (1 + np.exp(-scores))
    ranking = rank_classes(
        is_positive.astype(int), np.stack([1 - probs, probs], axis=1), classes=("ham", "spam")
    )
    assert ranking.roc_auc == pytest.approx(metrics.roc_auc_score(is_positive, probs))
    assert ranking.average_precision == pytest.approx(metrics.average_precision_score(is_positive, probs))
    assert [curve.label for curve in ranking.curves] == ["spam"]
    assert len(ranking.curves[0].roc) <= 200


def test_several_classes_are_ranked_one_by_one():
    draw = np.random.default_rng(2)
    true = draw.integers(0, 4, 200)
    probs = draw.dirichlet(np.ones(4), 200)
    probs[np.arange(200), true] += 0.3
    probs /= probs.sum(axis=1, keepdims=True)
    ranking = rank_classes(true.tolist(), probs.tolist(), classes="abcd")
    assert ranking.roc_auc == pytest.approx(
        metrics.roc_auc_score(true, probs, multi_class="ovr", average="macro")
    )
    one_hot = np.eye(4)[true]
    assert ranking.average_precision == pytest.approx(
        metrics.average_precision_score(one_hot, probs, average="macro")
    )


def test_a_class_without_texts_has_no_curve():
    ranking = rank_classes([0, 0], [[0.9, 0.1], [0.8, 0.2]], classes=("a", "b"))
    assert (ranking.roc_auc, ranking.average_precision) == (None, None)


def test_missing_probabilities_are_refused():
    with pytest.raises(DataError, match="2 probabilities for each of 1"):
        rank_classes([0], [[1.0]], classes=("a", "b"))
