"""Learning curves: every history can be drawn, always to the same bytes, in the colours of the page."""

import itertools
import re
from xml.etree import ElementTree

import matplotlib
import pytest

from scratchlm.reports.canvas import ROLES
from scratchlm.reports.learning_curves import MAX_POINTS, accuracy_plot, look_of, loss_plot, overlay_plot


def history(n_steps: int, *, every: int = 10) -> list[dict[str, float]]:
    rows = []
    for step in range(1, n_steps + 1):
        row = {"step": step, "tokens": step * 4096, "elapsed_s": step * 0.2, "train_loss": 2 + 5 / step}
        if step % every == 0 or step == n_steps:
            row |= {"val_loss": 2.1 + 5 / step, "val_accuracy": 1 - 0.5 / step}
        rows.append(row)
    return rows


@pytest.mark.parametrize("n_steps", [1, 2, 37, 2000])
def test_every_length_of_history_becomes_two_drawings_that_parse(n_steps):
    plot = loss_plot(history(n_steps), name="loss")
    for drawing in (plot.wide, plot.narrow):
        ElementTree.fromstring(drawing)
        assert "nan" not in drawing.lower()


def test_the_same_history_gives_the_same_bytes():
    assert loss_plot(history(50), name="loss") == loss_plot(history(50), name="loss")


def test_a_users_matplotlib_settings_do_not_change_the_plot():
    plain = loss_plot(history(5), name="loss")
    with matplotlib.rc_context(
        {"svg.fonttype": "path", "axes.grid": True, "axes.facecolor": "red", "font.size": 30}
    ):
        assert loss_plot(history(5), name="loss") == plain
        assert matplotlib.rcParams["font.size"] == 30, "the caller's own settings stay as they were"


def test_the_svg_is_clean_for_a_strict_page():
    drawing = loss_plot(history(20), name="loss").wide
    assert not re.search(r"\sstyle=|<style|<metadata|xlink|<script|http", drawing)
    assert not any(colour in drawing for colour in ROLES.values()), "stand-in colours are replaced by classes"
    assert 'class="s-val"' in drawing
    assert "<text" in drawing, "text stays text"


def test_ids_of_two_plots_never_meet():
    ids = [set(re.findall(r' id="([^"]+)"', loss_plot(history(9), name=name).wide)) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_references_inside_a_plot_point_to_ids_that_are_there():
    drawing = loss_plot(history(20), name="loss").wide
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawing))
    assert used <= set(re.findall(r' id="([^"]+)"', drawing))


def test_a_long_history_is_thinned_to_means_and_says_of_how_many():
    plot = loss_plot(history(2000), name="loss")
    assert plot.per_point == 7  # 2000 / 300, rounded up
    assert len(plot.points) <= 2 * MAX_POINTS
    assert plot.points[-1][0] == 2000, "the last step is kept"


def test_missing_and_non_finite_values_are_left_out():
    rows = [*history(5), {"step": 6, "train_loss": float("nan")}, {"step": 7}, {"train_loss": 3.0}]
    assert "nan" not in loss_plot(rows, name="loss").wide.lower()


def test_no_history_gives_no_plot():
    assert loss_plot([], name="loss") is None
    assert loss_plot([{"step": 1}], name="loss") is None
    assert accuracy_plot([{"step": 1, "train_loss": 1.0}], name="accuracy") is None


def test_steps_out_of_order_are_drawn_in_order():
    rows = history(30)
    assert loss_plot(rows[::-1], name="loss") == loss_plot(rows, name="loss")


def test_the_uniform_guess_is_drawn_only_when_training_began_near_it():
    assert "uniform guess 6.93" in loss_plot(history(20), name="loss", uniform_loss=6.93).wide
    assert "uniform guess" not in loss_plot(history(20), name="loss", uniform_loss=13.8).wide


def test_the_words_under_the_curve_tell_only_what_the_curve_shows():
    rows = history(20)
    assert "accuracy" not in loss_plot(rows, name="loss").points[-1][1]
    assert (
        accuracy_plot(rows, name="accuracy").points[-1][1]
        == "step 20 · validation accuracy 97.5% · 81.9k tokens · 4.0 s"
    )


def run_history(n_steps, *, every=10, shift=0.0):
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
    plot = drawn([("a", run_history(50)), ("b", run_history(50, shift=1)), ("c", run_history(50, shift=2))])
    for role in ("run1", "run2", "run3"):
        assert f"s-{role}" in plot.wide
    for drawing in (plot.wide, plot.narrow):
        ElementTree.fromstring(drawing)


def test_a_run_keeps_its_look_when_another_has_nothing_to_show():
    plot = drawn([("a", []), ("b", run_history(50))])
    assert "s-run2" in plot.wide
    assert "s-run1" not in plot.wide


def test_a_pointer_is_told_what_every_run_had_by_then():
    plot = drawn([("short", run_history(20)), ("long", run_history(40, shift=1))])
    words = dict(map(tuple, plot.points))
    assert words[20.0] == "step 20 · short 2.350 · long 3.350"
    assert words[40.0] == "step 40 · short 2.350 (ended) · long 3.225"


def test_shares_are_told_in_percent():
    plot = drawn([("a", run_history(20))], key="val_accuracy", is_share=True)
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
    assert drawn([(f"run {i}", run_history(30, shift=i / 5)) for i in range(n_runs)]) is not None
