"""Histograms of scores: every score is in one bar, and the mean is the mean."""

from __future__ import annotations

from xml.etree import ElementTree

from matplotlib.figure import Figure

from scratchlm.reports.canvas import PRINTED
from scratchlm.reports.comparison_page import score_drawings
from scratchlm.reports.score_plots import score_plot


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
