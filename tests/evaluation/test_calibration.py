"""Probabilities and how often they are right, against scikit-learn."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from scratchlm.core.errors import DataError
from scratchlm.evaluation.calibration import expected_calibration_error, reliability


def test_bins_hold_scikit_learns_shares():
    draw = np.random.default_rng(0)
    confidences = draw.uniform(0.001, 1, 500)
    is_right = draw.uniform(size=500) < confidences**2
    bins = reliability(confidences.tolist(), is_right.tolist())
    accuracy, confidence = calibration_curve(is_right, confidences, n_bins=10)
    filled = [one for one in bins if one.n]
    assert [one.accuracy for one in filled] == pytest.approx(accuracy.tolist())
    assert [one.confidence for one in filled] == pytest.approx(confidence.tolist())
    assert sum(one.n for one in bins) == 500
    by_hand = sum(one.n * abs(one.accuracy - one.confidence) for one in filled) / 500
    assert expected_calibration_error(bins) == pytest.approx(by_hand)
    assert expected_calibration_error(bins) > 0.1  # the square is overconfident


def test_honest_probabilities_have_no_error():
    bins = reliability([0.75] * 4 + [0.5] * 2, [True, True, True, False, True, False])
    assert expected_calibration_error(bins) == 0
    assert [one.n for one in bins if one.n] == [2, 4]


def test_the_ends_belong_to_the_outer_bins():
    bins = reliability([0.0, 1.0, 0.1], [False, True, False], n_bins=10)
    assert (bins[0].n, bins[9].n) == (2, 1)


@pytest.mark.parametrize(
    ("confidences", "is_right"), [([], []), ([0.5], []), ([1.5], [True]), ([float("nan")], [True])]
)
def test_nonsense_is_refused(confidences, is_right):
    with pytest.raises(DataError, match="confidence from 0 to 1"):
        reliability(confidences, is_right)


def test_no_answers_have_no_error():
    with pytest.raises(DataError, match="needs predictions"):
        expected_calibration_error([])
