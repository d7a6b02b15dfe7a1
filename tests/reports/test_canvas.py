"""The canvas: one drawing, on the page in the page's colours and in a file in its own."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import pytest

from scratchlm.core.errors import DataError
from scratchlm.reports.canvas import PRINTED, ROLES, Drawing
from scratchlm.reports.run_page import report_drawings


def draw(axes, colours, is_wide):
    axes.plot([0, 1], [0, 2], color=colours["val"])
    axes.annotate("wide" if is_wide else "narrow", (0.5, 1), color=colours["muted"])
    return {"min": 0, "max": 1}


@pytest.fixture
def drawing() -> Drawing:
    keys = [("val", "validation <loss>", "solid")]
    return Drawing(name="loss", draw=draw, margins=(40, 20, 10, 30), title="Loss & more", keys=keys)


def test_every_role_has_a_printed_colour():
    assert PRINTED.keys() == ROLES.keys()


def test_the_page_gets_classes_and_the_frame_the_script_needs(drawing):
    svg = drawing.on_page()
    assert 'class="s-val"' in svg
    assert 'data-left="40" data-right="330" data-top="10" data-bottom="240" data-min="0" data-max="1"' in svg
    assert "narrow" in svg
    assert not any(colour in svg for colour in (*ROLES.values(), *PRINTED.values()))


def test_a_file_has_true_colours_a_title_and_a_key(drawing, tmp_path):
    drawing.save(tmp_path / "loss.svg")
    text = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    words = " ".join(ElementTree.fromstring(text).itertext())
    assert "Loss & more" in words
    assert "validation <loss>" in words
    assert PRINTED["val"] in text
    assert not any(colour in text for colour in ROLES.values())


def test_a_png_is_sharp_enough_for_a_slide(drawing, tmp_path):
    drawing.save(tmp_path / "loss.png")
    height, width, _ = matplotlib.image.imread(tmp_path / "loss.png").shape
    assert width > 2000
    assert height > 1000


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_drawing_gives_the_same_file(drawing, tmp_path, kind):
    for name in ("a", "b"):
        drawing.save(tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_file_that_cannot_be_written_is_told(drawing, tmp_path):
    with pytest.raises(DataError, match=r"nowhere/loss\.png could not be written"):
        drawing.save(tmp_path / "nowhere" / "loss.png")


def test_every_plot_of_a_page_can_be_a_file(tmp_path):
    data = json.loads(Path(__file__).with_name("run_page_data.json").read_text(encoding="utf-8"))
    data["classify"]["reliability"] = [{"n": 4, "confidence": 0.55, "accuracy": 0.5}]
    drawings = report_drawings(data)
    names = [drawing.name for drawing in drawings]
    assert names == ["pretrain", "classify_loss", "classify_accuracy", "instruct", "unit-reliability"]
    for one in drawings:
        one.save(tmp_path / f"{one.name}.svg")
        assert re.search("<text", (tmp_path / f"{one.name}.svg").read_text(encoding="utf-8"))
