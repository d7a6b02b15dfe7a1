"""Histograms of scores: every score is in one bar, and the mean is the mean."""

from __future__ import annotations

from xml.etree import ElementTree

from matplotlib.figure import Figure

from scratchlm.evaluation.report.canvas import PRINTED
from scratchlm.evaluation.report.score_plots import score_plot


def bars(drawing):
    axes = Figure().add_subplot()
    drawing.draw(axes, PRINTED, False)
    return [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")][:10]


def test_every_score_is_in_one_bar_the_ends_of_the_scale_too():
    drawing = score_plot([0, 0, 55, 99, 100, 100], name="s", role="run1")
    assert bars(drawing) == [2, 0, 0, 0, 0, 1, 0, 0, 0, 3]


def test_the_mean_and_the_scale_are_written_on_it():
    svg = score_plot([10, 20], name="s", role="run2", interval=(12, 18)).narrow()
    words = " ".join(ElementTree.fromstring(svg).itertext())
    assert "mean 15.0" in words
    assert "100" in words
    assert 'class="f-run2"' in svg


def test_another_scale_is_drawn_as_it_is():
    drawing = score_plot([1, 10], name="s", role="run1", scale=(1, 10))
    assert bars(drawing) == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert "mean 5.50" in drawing.narrow()


def test_no_scores_give_no_plot():
    assert score_plot([], name="s", role="run1") is None
