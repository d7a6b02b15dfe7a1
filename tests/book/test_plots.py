"""The book's pictures of a training."""

import matplotlib
import pytest
import torch

from scratchlm.book import ch05, ch06


@pytest.mark.parametrize(
    ("draw", "label", "seen"),
    [
        (ch05.plot_losses, None, "Tokens seen"),
        (ch05.plot_losses, "reward margins", "Tokens seen"),
        (ch06.plot_values, "accuracy", "Examples seen"),
    ],
)
def test_a_plot_is_saved_under_its_label_and_shown(tmp_path, monkeypatch, draw, label, seen):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    texts = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", lambda: texts.extend(axes.get_xlabel() for axes in pyplot.gcf().axes))
    draw(
        torch.linspace(0, 2, 3),
        [16, 64, 112],
        [4.0, 3.0, 2.0],
        [4.1, 3.5, 3.0],
        **({"label": label} if label else {}),
    )
    pyplot.close("all")
    assert (tmp_path / f"{label or 'loss'}-plot.pdf").read_bytes().startswith(b"%PDF")
    assert texts == ["Epochs", seen]
