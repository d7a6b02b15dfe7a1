"""Histograms of scores: every score is in one bar, and the mean is the mean."""

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from scratchlm.reports.canvas import PRINTED
from scratchlm.reports.comparison_page import score_drawings
from scratchlm.reports.plots import ranking_plot, reliability_plot, score_plot
from scratchlm.reports.run_page import render_report


def bars(drawing):
    axes = Figure().add_subplot()
    drawing.draw(axes, PRINTED, False)
    return [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")][:10]


def test_every_score_is_in_one_bar_the_ends_of_the_scale_too():
    drawing = score_plot([0, 0, 55, 99, 100, 100], name="s", role="run1")
    assert bars(drawing) == [2, 0, 0, 0, 0, 1, 0, 0, 0, 3]


def test_the_mean_and_the_scale_are_written_on_it():
    svg = score_plot([10, 20], name="s", role="run2", interval=(12, 18)).on_page()
    words = " ".join(ElementTree.fromstring(svg).itertext())
    assert "mean 15.0" in words
    assert "100" in words
    assert 'class="f-run2"' in svg


def test_another_scale_is_drawn_as_it_is():
    drawing = score_plot([1, 10], name="s", role="run1", scale=(1, 10))
    assert bars(drawing) == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert "mean 5.50" in drawing.on_page()


def test_no_scores_give_no_plot():
    assert score_plot([], name="s", role="run1") is None


def test_equal_bars_of_plots_beside_each_other_are_equally_high():
    def top(drawing):
        axes = Figure().add_subplot()
        drawing.draw(axes, PRINTED, False)
        return axes.get_ylim()[1]

    few, many, other = (
        {"judge": "j", "min": least, "max": most, "scores": scores}
        for least, most, scores in ((0, 100, [5] * 3), (0, 100, [5] * 40), (1, 10, [5] * 7))
    )
    drawings = score_drawings([{"judged": few}, {"judged": many}, {"label": "a run"}, {"judged": other}])
    assert drawings[2] is None
    assert top(drawings[0]) == top(drawings[1]) > 40
    assert top(drawings[3]) < 8


BINS = [
    {"low": 0.5, "high": 0.6, "n": 4, "confidence": 0.55, "accuracy": 0.5},
    {"low": 0.6, "high": 0.7, "n": 0, "confidence": None, "accuracy": None},
    {"low": 0.9, "high": 1.0, "n": 36, "confidence": 0.97, "accuracy": 1.0},
]
CURVES = [{"label": "spam", "roc": [[0, 0], [0, 0.9], [1, 1]], "precision_recall": [[0.5, 1.0], [1.0, 0.4]]}]


def test_empty_bins_have_no_dot_and_full_ones_are_larger():
    drawn = str(reliability_plot(BINS).on_page())
    assert drawn.startswith("<svg")
    assert "f-val" in drawn
    assert not re.search(r"#[0-9a-f]{6}|style=", drawn)
    assert reliability_plot([BINS[1]]) is None
    assert reliability_plot(None) is None


@pytest.mark.parametrize("kind", ["roc", "precision_recall"])
def test_two_classes_have_a_curve_and_three_have_none(kind):
    assert "s-val" in str(ranking_plot(CURVES, kind).on_page())
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
    for words in ("Calibration", "0.9500", "3.2", "With 3 seeds", "120", "threshold in use"):
        assert words in page
