"""Plots of shares: drawn from figures, in the page's colours, and absent where there is nothing to draw."""

from __future__ import annotations

import re

import pytest

from scratchlm.reports.run_page import render_report
from scratchlm.reports.unit_plots import ranking_plot, reliability_plot

BINS = [
    {"low": 0.5, "high": 0.6, "n": 4, "confidence": 0.55, "accuracy": 0.5},
    {"low": 0.6, "high": 0.7, "n": 0, "confidence": None, "accuracy": None},
    {"low": 0.9, "high": 1.0, "n": 36, "confidence": 0.97, "accuracy": 1.0},
]
CURVES = [{"label": "spam", "roc": [[0, 0], [0, 0.9], [1, 1]], "precision_recall": [[0.5, 1.0], [1.0, 0.4]]}]


def test_empty_bins_have_no_dot_and_full_ones_are_larger():
    drawn = str(reliability_plot(BINS).narrow())
    assert drawn.startswith("<svg")
    assert "f-val" in drawn
    assert not re.search(r"#[0-9a-f]{6}|style=", drawn)
    assert reliability_plot([BINS[1]]) is None
    assert reliability_plot(None) is None


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_two_classes_have_a_curve_and_three_have_none(kind):
    assert "s-val" in str(ranking_plot(CURVES, kind).narrow())
    assert ranking_plot(CURVES * 3, kind) is None
    assert ranking_plot([{"label": "spam", kind: []}], kind) is None


def test_the_page_tells_of_calibration_seeds_and_fewer_texts():
    page = render_report(
        {
            "classify": {
                "classes": ["ham", "spam"],
                "reliability": BINS,
                "calibration_error": 0.032,
                "curves": CURVES,
                "roc_auc": 0.95,
                "average_precision": 0.93,
                "seeds": {"n": 3, "mean": 0.96, "deviation": 0.01, "low": 0.94, "high": 0.98},
                "learning_curve": [{"n_texts": 120, "accuracy": 0.9, "seed": 0}],
                "threshold": {"label": "spam", "probability": 0.4},
            }
        }
    )
    for words in (
        "Can its probabilities be believed?",
        "0.9500",
        "3.2",
        "With 3 seeds",
        "120",
        "threshold in use",
    ):
        assert words in page
