import json
from typing import Any

import pytest

from scratchlm.finetuning.heads import replace_head
from scratchlm.inspection.inspect_prompt import inspect_prompt
from scratchlm.reports.inspection_figure import save_inspection_figure
from scratchlm.reports.inspection_page import explained, head_to_show, part_columns, render_inspection
from tests.inspection.conftest import VARIANTS, varied
from tests.reports.pages import HOSTILE, Page, poison

TEXT = "The cat sat on the mat and the cat"
TASK = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 32}


@pytest.fixture(params=["gpt2", "llama", "classifier"])
def data(request, tiny_tokenizer) -> dict[str, Any]:
    is_classifier = request.param == "classifier"
    model = varied(VARIANTS["gpt2" if is_classifier else request.param])
    if is_classifier:
        replace_head(model, 2)
    return inspect_prompt(model, tiny_tokenizer, TEXT, task=TASK if is_classifier else None).as_json()


def test_the_page_is_well_formed_and_complete_without_its_script(data):
    page = Page(render_inspection(data, model="runs/quickstart", text=TEXT), between=" ")
    assert page.wrong == []
    assert len(page.ids) == len(set(page.ids))
    assert page.named <= set(page.ids)
    assert TEXT in page.text
    assert "runs/quickstart" in page.text
    for title in (
        "Why this prediction",
        "Direct logit attribution",
        "Logit lens",
        "Attention heads",
        "Norms",
    ):
        assert title in page.text, title
    assert ("Loss of each token" in page.text) == (data["kind"] == "language model")
    best = data["choices"][0]
    assert f"{100 * best['prob']:.1f}%" in page.text


def test_hostile_texts_stay_text(data):
    html = render_inspection(poison(data, kept=("kind",)), model=HOSTILE, text=HOSTILE)
    assert Page(html).wrong == []
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "\x00" not in html
    assert "\u202e" not in html


def test_the_contributions_of_a_choice_add_up_to_its_logit_above_the_mean(data):
    for choice in data["choices"]:
        shown = explained(choice, data)
        total = sum(map(sum, shown["rows"])) + sum(shown["rest"].values())
        assert total == pytest.approx(shown["above_mean"], abs=1e-4)  # JSON has 6 significant digits
        assert {len(row) for row in shown["rows"]} == {len(part_columns(data))}
        sizes = [abs(value) for _, value in shown["largest"]]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == pytest.approx(shown["scale"])


def test_a_column_for_the_bias_is_there_only_if_attention_has_one(data):
    has_bias = any(data["mean_parts"]["attention_bias"])
    assert part_columns(data) == ["0", "1", "2", "3", *(["bias"] if has_bias else []), "FFN"]


def test_the_clearest_head_is_an_induction_head_or_one_that_reads_the_previous_token():
    def head(**values):
        return {"previous": 0.1, "first": 0.1, "itself": 0.1, "induction": None} | values

    assert head_to_show([[head(), head(previous=0.4)], [head(previous=0.3), head()]]) == 1
    repeated = [[head(previous=0.9, induction=0.1), head(induction=0.2)], [head(induction=0.8)] * 2]
    assert head_to_show(repeated) == 2


def test_the_pages_data_holds_the_tokens_with_visible_spaces(data):
    html = render_inspection(data, model="m", text=TEXT)
    held = json.loads(html.split('id="page-data">')[1].split("</script>")[0])
    assert [token["id"] for token in held["tokens"]] == [token["id"] for token in data["tokens"]]
    assert "".join(token["text"] for token in held["tokens"]) == TEXT.replace(" ", "·")
    assert held["attention"][0][0][-1] == [round(1000 * w) for w in data["attention"][0][0][-1]]


def test_the_picture_is_a_png_of_any_inspection(data, tmp_path):
    save_inspection_figure(data, tmp_path / "a.png", text=f"{TEXT} $\\frac$ {HOSTILE}")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
