"""Curves of several runs in one plot: each keeps its look, and a pointer is told of all of them."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest

from scratchlm.reports.overlay_plots import look_of, overlay_plot


def history(n_steps, *, every=10, shift=0.0):
    return [
        {"step": step, "train_loss": 2 + shift + 5 / step}
        | (
            {"val_loss": 2.1 + shift + 5 / step, "val_accuracy": 0.5 + shift / 10}
            if step % every == 0
            else {}
        )
        for step in range(1, n_steps + 1)
    ]


def drawn(histories, key="val_loss", **more):
    return overlay_plot(histories, key, name="loss", title="Loss", **more)


def test_every_run_has_its_own_colour_in_the_plot():
    plot = drawn([("a", history(50)), ("b", history(50, shift=1)), ("c", history(50, shift=2))])
    for role in ("run1", "run2", "run3"):
        assert f"s-{role}" in plot.wide
    for drawing in (plot.wide, plot.narrow):
        ElementTree.fromstring(drawing)


def test_a_run_keeps_its_look_when_another_has_nothing_to_show():
    plot = drawn([("a", []), ("b", history(50))])
    assert "s-run2" in plot.wide
    assert "s-run1" not in plot.wide


def test_a_pointer_is_told_what_every_run_had_by_then():
    plot = drawn([("short", history(20)), ("long", history(40, shift=1))])
    words = dict(map(tuple, plot.points))
    assert words[20.0] == "step 20 · short 2.350 · long 3.350"
    assert words[40.0] == "step 40 · short 2.350 (ended) · long 3.225"


def test_shares_are_told_in_percent():
    plot = drawn([("a", history(20))], key="val_accuracy", is_share=True)
    assert plot.points[-1][1] == "step 20 · a 50.0%"
    assert "50%" in plot.wide


def test_a_training_loss_far_away_does_not_flatten_the_validation_loss():
    rows = [
        {"step": step, "train_loss": 1000.0 * (step == 3), "val_loss": 1 + 1 / step} for step in range(1, 9)
    ]
    plot = drawn([("a", rows)], training_key="train_loss")
    assert "1000" not in plot.wide
    assert ">1.6</text>" in plot.wide


def test_a_run_without_validation_is_drawn_by_its_training_loss():
    rows = [{"step": step, "train_loss": 3.0 / step} for step in range(1, 9)]
    plot = drawn([("a", rows)], training_key="train_loss")
    assert plot.drawing.keys[0][1] == "a (training)"
    assert plot.points[-1][1] == "step 8 · a 0.375"


def test_nothing_recorded_gives_no_plot():
    assert drawn([("a", []), ("b", [{"step": 1}])]) is None


def test_the_first_twelve_looks_differ_and_neighbours_differ_in_both():
    looks = [look_of(i) for i in range(12)]
    assert len({str(look) for look in looks}) == 12
    for one, other in itertools.pairwise(looks[:6]):
        assert one[0] != other[0]
        assert one[1] != other[1]


@pytest.mark.parametrize("n_runs", [1, 12])
def test_one_run_and_many_can_be_drawn(n_runs):
    assert drawn([(f"run {i}", history(30, shift=i / 5)) for i in range(n_runs)]) is not None
