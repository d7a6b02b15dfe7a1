"""The data report: complete for every kind of data, safe against what files hold."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from scratchlm.data.audit import inspect_data
from scratchlm.data.shards import prepare_tokens
from scratchlm.reports.data_report_page import MAX_CLASSES, facts, render_data_report
from scratchlm.reports.plots import histogram_plot
from tests.reports.pages import Page, poison

OWN_WORDS = ("kind", "unit", "length_unit", "level", "template")  # of the audit, not of a file


@pytest.fixture
def make(tmp_path, tiny_tokenizer):
    """The figures of one dataset of each kind."""

    def make_one(kind: str) -> dict[str, Any]:
        files = {
            "text": ("a.txt", "The cat.\n\nThe d\x93og <|endoftext|>.\n"),
            "classification": (
                "a.tsv",
                "ham\tsee you &amp; me\nspam\tWIN\nham\tsee you &amp; me\nspam\twin!\n",
            ),
            "instruction": (
                "a.json",
                json.dumps([{"instruction": "Say it", "input": "cat", "output": "a cat"}] * 2),
            ),
            "preference": (
                "a.jsonl",
                json.dumps({"prompt": "Hi", "chosen": "the cat sat", "rejected": "no"}),
            ),
            "shards": ("a.txt", "The cat sat on the mat. " * 50),
        }
        name, content = files[kind]
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        paths: list[Path] = [path]
        if kind == "shards":
            paths = [prepare_tokens(path, tiny_tokenizer, cache_folder=tmp_path).folder]
        elif kind == "classification":
            (tmp_path / "test.tsv").write_text("spam\twin\nbroken\n")
            paths.append(tmp_path / "test.tsv")
        return inspect_data(paths, tokenizer=tiny_tokenizer, context_length=3)

    return make_one


KINDS = ("text", "classification", "instruction", "preference", "shards")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hostile", [False, True], ids=["plain", "hostile"])
def test_the_page_of_every_kind_is_sound_and_safe(make, kind, hostile):
    figures = make(kind)
    html = render_data_report(poison(figures, kept=OWN_WORDS) if hostile else figures)
    page = Page(html, between=" ")
    assert page.wrong == []
    assert len(set(page.ids)) == len(page.ids)
    assert page.named <= set(page.ids)
    assert "https://" not in html
    assert "undefined" not in page.text
    assert "<script>alert" not in html
    if hostile:
        assert "<script>alert(1)</script>" in page.text


def test_the_page_tells_every_finding_and_the_main_figures(make):
    figures = make("classification")
    text = Page(render_data_report(figures), between=" ").text
    for finding in figures["findings"]:
        assert " ".join(finding["text"].split())[:80] in text
    for words in ("5 rows", "4 distinct texts", "ham 2 40.0%", "1 of 1", "Rows that cannot be used"):
        assert words in text, words
    assert "in 2 splits" in text


def test_every_token_is_shown_with_or_without_loss_as_training_has_it(tmp_path, tiny_tokenizer):
    path = tmp_path / "a.json"
    path.write_text('[{"instruction": "Say it", "output": "the cat sat"}]')
    figures = inspect_data([path], tokenizer=tiny_tokenizer)
    html = render_data_report(figures)
    (passage, *_) = re.findall(r'<p class="passage model">(.*?)</p>', html, re.DOTALL)
    shown = re.findall(r'<span class="(tok q\d|prompt)">(.*?)</span>', passage, re.DOTALL)
    tokens = figures["loss"]["rows"][0]["tokens"]
    assert [kind.startswith("tok") for kind, _ in shown] == [token["loss"] for token in tokens]
    assert "".join(unescape(text) for _, text in shown) == "".join(token["text"] for token in tokens)
    carried = "".join(unescape(text) for kind, text in shown if kind.startswith("tok"))
    assert carried == "the cat sat<|endoftext|>"


def test_without_a_tokenizer_the_page_says_why_no_tokens_are_shown(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"instruction": "a", "output": "b"}]')
    text = Page(render_data_report(inspect_data([path])), between=" ").text
    assert "without a tokenizer there are no tokens to show" in text
    assert "at most 2 words" in text


def test_many_classes_are_cut_and_counted(make):
    figures = make("classification")
    figures["classes"] = [{"label": f"class {i}", "n": 1, "share": 0.01} for i in range(100)]
    text = Page(render_data_report(figures), between=" ").text
    assert f"{100 - MAX_CLASSES} more classes are not shown" in text


def test_the_first_figures_are_those_of_the_data(make):
    assert facts(make("shards"))[0] == ("1", "documents")
    assert ("2", "paragraphs") in facts(make("text"))
    assert ("2", "classes") in facts(make("classification"))


def test_a_histogram_is_drawn_twice_in_the_pages_colours_and_marks_the_context():
    histogram = {"width": 5, "edges": [0, 5, 10, 15], "counts": [4, 9, 2, 1], "is_open": True}
    svg = histogram_plot(histogram, name="lengths", context_length=10)
    assert svg.count("<svg") == 2
    assert "plot-wide" in svg
    assert "plot-narrow" in svg
    assert svg.count("context 10") == 2
    assert svg.count("15+") == 2
    assert 'class="f-train"' in svg  # one bar is longer than the context
    assert "#0000" not in svg
    assert "style=" not in svg
    assert svg == histogram_plot(histogram, name="lengths", context_length=10), "same data, same bytes"


def test_a_histogram_of_one_length_can_be_drawn():
    assert "<svg" in histogram_plot({"width": 1, "edges": [0], "counts": [3], "is_open": False}, name="one")
