"""The report page: complete, safe against what models write, honest about what it leaves out."""

import base64
import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from scratchlm.core.errors import DataError
from scratchlm.reports.figures import baseline_bars, claims
from scratchlm.reports.page_shell import TEMPLATES
from scratchlm.reports.run_page import (
    attention_view,
    confusion_view,
    lifecycle_steps,
    render_report,
    samples_by_step,
    summary,
)
from tests.reports.pages import Page, poison


@pytest.fixture
def data() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("run_page_data.json").read_text(encoding="utf-8"))


def test_every_section_of_a_full_run_is_on_the_page(data):
    page = Page(render_report(data))
    found = {attributes.get("id") for tag, attributes in page.tags if tag == "section"}
    assert found == {
        "tokens",
        "pretrain",
        "attention",
        "coloured",
        "classify",
        "instruct",
        "figures",
        "run",
        "next",
    }


def test_tags_are_balanced_without_inline_style_or_event_handlers_and_ids_are_unique(data):
    for variant in (data, poison(data), {}):
        page = Page(render_report(variant))
        assert not page.wrong
        assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize(
    "stage",
    ["tokenizer", "pretrain", "attention", "coloured", "classify", "instruct", "stages", "machine", "next"],
)
def test_each_stage_may_be_missing(data, stage):
    del data[stage]
    page = Page(render_report(data))
    assert not page.wrong


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "classify", "instruct"])
def test_each_key_of_a_stage_may_be_missing(data, stage):
    data[stage].pop("history", None)  # drawing is slow, and the other tests do it
    for key in data[stage]:
        part = {name: value for name, value in data[stage].items() if name != key}
        assert not Page(render_report({stage: part})).wrong


def test_the_sources_of_a_mixture_are_shown_with_their_weights_and_passes(data):
    text = Page(render_report({"pretrain": data["pretrain"]})).text
    assert re.search(r"books/\s*70\.0%\s*860,160\s*2\.00\s*1\.742", text)
    assert re.search(r"letters\.jsonl\s*30\.0%\s*368,640\s*0\.45", text)
    assert "Sources" not in Page(render_report({"pretrain": {"val_loss": 3.2, "sources": []}})).text


def test_a_stage_that_was_not_run_says_so():
    page = Page(render_report({"title": "Only a start", "pretrain": {"val_loss": 3.2}}))
    assert page.text.count("not run") == 3


def test_the_page_needs_no_network(data):
    page = Page(render_report(data))
    for _, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/svg+xml,"))
    assert "@import" not in render_report(data)


def test_the_content_security_policy_names_exactly_our_style_and_script(data):
    html = render_report(data)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        block = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_hostile_text_stays_text(data):
    html = render_report(poison(data))
    page = Page(html)
    assert "<script>alert" not in html
    assert "<img" not in html
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "<script>alert(1)</script>" in page.text, "it can be read, as text"
    html.encode("utf-8")  # lone surrogates are gone


def test_the_data_for_the_script_is_json_without_a_way_out(data):
    html = render_report(poison(data))
    block = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)[1]
    assert "<" not in block
    assert "alert(1)" in json.loads(block)["attention"]["tokens"][0]


def test_the_same_data_gives_the_same_page(data):
    assert render_report(data) == render_report(copy.deepcopy(data))


def test_a_large_run_stays_under_a_megabyte(data):
    size = 300
    data["attention"] = {
        "tokens": [f" token{i}" for i in range(size)],
        "weights": [[1 / (i + 1) if j <= i else 0 for j in range(size)] for i in range(size)],
    }
    data["pretrain"]["history"] = [
        {"step": i, "train_loss": 2 + 5 / i, "val_loss": 2 + 6 / i} for i in range(1, 2001)
    ]
    data["pretrain"]["samples"] = [{"step": i, "prompt": "Once", "text": "word " * 2000} for i in range(200)]
    data["coloured"]["tokens"] *= 50
    data["instruct"]["answers"] *= 100
    data["classify"]["mistakes"] *= 100
    html = render_report(data)
    assert len(html.encode()) < 1_000_000
    text = Page(html).text
    for left_out in (
        "260 more tokens",
        "160 more steps",
        "540 more answers",
        "388 more mistakes",
        "more characters",
    ):
        assert left_out in text


def test_nothing_is_ever_nan(data):
    data["pretrain"] |= {"val_loss": float("nan"), "perplexity": float("inf"), "tokens_per_s": None}
    data["pretrain"]["history"][3]["train_loss"] = float("nan")
    data["classify"]["per_class"][0]["precision"] = float("nan")
    data["seconds"] = None
    words = Page(render_report(data)).text.lower()
    assert not re.search(r"\b(nan|inf|none|undefined)\b", words)


def test_sample_data_is_said_to_be_sample_data(data):
    assert data["sample_notice"] in Page(render_report(data)).text
    assert "Sample data." in Page(render_report({"sample_data": True})).text
    assert "Sample data." not in Page(render_report({"title": "real"})).text


def test_every_mean_says_over_how_many_items_it_is(data):
    by_name = {claim.name: claim for claim in claims(data)}
    assert by_name["Classifier accuracy"].over == "160 messages"
    assert by_name["Classifier accuracy"].interval == "93.7–99.0%"
    assert by_name["Exact match"].over == "120 tasks"
    assert by_name["Validation loss"].over == "14,210 tokens of 180 documents"
    assert claims({"instruct": {"exact_match": 0.5}})[0].over == "not recorded"


def test_a_missing_baseline_is_not_a_baseline_of_zero(data):
    data["classify"]["baseline_tfidf"] = None
    assert "Word counts" not in [bar.label for bar in baseline_bars("classify", data["classify"])]
    assert "word-count baseline was not run" in Page(render_report(data)).text


def test_mistakes_are_shown_with_the_most_confident_first(data):
    data["classify"]["mistakes"].reverse()
    text = Page(render_report(data)).text
    assert text.index("confidence 99.1%") < text.index("confidence 96.4%") < text.index("confidence 61.1%")


def test_the_model_lifecycle_has_four_steps(data):
    figures = [step.figure for step in lifecycle_steps(data)]
    assert figures == ["1,024", f"{data['pretrain']['val_loss']:.2f}", "97.5%", "67.5%"]


def test_the_summary_tells_only_what_is_known():
    assert summary({}) == ""
    assert summary({"pretrain": {"parameters": 2_000_000}}) == (
        "A GPT with 2.00 million parameters, pre-trained on text."
    )
    assert summary({"classify": {"test_n": 1}, "seconds": 61}) == (
        "A GPT, fine-tuned as a classifier. The whole run took 1 min 01 s."
    )


def test_a_prompt_is_not_shown_twice():
    shown = samples_by_step(
        [{"step": 1, "prompt": "Once", "text": "Once upon"}, {"step": 1, "prompt": "", "text": "x"}]
    )
    assert shown.items == [
        {"step": 1, "texts": [{"prompt": "Once", "text": " upon"}, {"prompt": "", "text": "x"}]}
    ]


def test_many_moments_keep_the_first_and_the_last():
    shown = samples_by_step([{"step": step, "prompt": "", "text": "x"} for step in range(500)])
    assert (shown.items[0]["step"], shown.items[-1]["step"], shown.n_left_out) == (0, 499, 460)


def test_attention_of_another_size_than_its_tokens_is_refused():
    with pytest.raises(DataError, match=r"2 rows and columns.*got 1 rows of \[2\]"):
        attention_view({"tokens": ["a", "b"], "weights": [[1.0, 0.0]]})


def test_a_confusion_matrix_of_another_size_than_its_classes_is_refused():
    with pytest.raises(DataError, match="rows are actual classes"):
        confusion_view({"classes": ["ham", "spam"], "confusion": [[1, 2, 3], [4, 5, 6]]})


def test_a_class_without_test_items_has_no_shares():
    rows = confusion_view({"classes": ["ham", "spam"], "confusion": [[0, 0], [1, 3]]})
    assert [cell["share"] for cell in rows[0]["cells"]] == [None, None]
    assert [cell["share"] for cell in rows[1]["cells"]] == [0.25, 0.75]


@pytest.mark.parametrize("probability", [-0.1, 1.5, 97.0, float("nan"), None])
def test_a_probability_outside_zero_to_one_is_refused(probability):
    with pytest.raises(DataError, match="divide a percentage by 100"):
        render_report({"coloured": {"tokens": [{"text": "a", "probability": probability}]}})


def test_probabilities_of_exactly_zero_and_one_are_shown():
    tokens = [{"text": "", "probability": 0, "alternatives": [["a", 1]]}, {"text": "b", "probability": 1}]
    text = Page(render_report({"coloured": {"prompt": "", "tokens": tokens}})).text
    assert "1 of 2 tokens" in text


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *[
            (text, ground)
            for text in ("ink", "muted", "accent", "right", "wrong")
            for ground in ("paper", "card")
        ],
        *[("ink", ground) for ground in ("sure", "unsure")],
        ("paper", "accent"),
    ],
)
def test_text_has_the_contrast_that_wcag_asks_for(mode, text, ground):
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    colours = {
        name: pair[mode] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    }
    darker, lighter = sorted((luminance(colours[text]), luminance(colours[ground])))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, success criterion 1.4.3, level AA


def test_plots_and_tables_have_names_for_readers_who_cannot_see_them(data):
    page = Page(render_report(data))
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if attributes.get("role") in ("img", "region", "listbox", "group"):
            assert attributes.get("aria-label")
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 0
    assert tags.count("h1") == 1


STAGE = {
    "loss": "dpo", "beta": 0.1, "test_n": 40, "test_accuracy": 0.9, "low": 0.77, "high": 0.96, "likelier": 0.6,
    "base_likelier": 0.25, "reward_margin": 1.234, "kl": 0.0567, "seconds": 12.0,
    "history": [
        {"step": 0, "val_loss": 0.6931}, {"step": 1, "train_loss": 0.69},
        {"step": 2, "train_loss": 0.5, "val_loss": 0.4},
    ],
    "answers": [
        {"instruction": "Say it <b>politely</b>.", "input": "Tea!", "answer": "", "chosen": "Tea, please.",
         "rejected": "Now."}
    ],
}  # fmt: skip


def test_the_section_tells_the_figures_and_over_how_many_pairs():
    page = Page(render_report({"prefer": STAGE}))
    assert "prefer" in {attributes.get("id") for tag, attributes in page.tags if tag == "section"}
    for words in (
        "by the loss dpo with beta 0.10", "over 40 held-out pairs", "1.234", "0.0567 nats per token", "Tea, please.",
        "Say it <b>politely</b>.", "(nothing)", "A GPT, fine-tuned on preferences.",
    ):  # fmt: skip
        assert words in page.text


def test_each_figure_may_be_missing_and_any_text_stays_text():
    for key in STAGE:
        part = {name: value for name, value in STAGE.items() if name not in (key, "history")}
        assert not Page(render_report({"prefer": part})).wrong
    assert not Page(render_report({"prefer": poison(STAGE)})).wrong


def test_a_loss_without_a_reference_has_no_distance_from_it():
    assert "nats per token away" not in Page(render_report({"prefer": {**STAGE, "kl": None}})).text


def test_a_run_without_the_stage_has_no_section():
    assert 'id="prefer"' not in render_report({"title": "x"})


def test_bars_and_claims_are_those_of_the_stage():
    bars = baseline_bars("prefer", STAGE)
    assert [(bar.value, bar.low, bar.is_ours) for bar in bars] == [
        (0.9, 0.77, True),
        (0.6, None, False),
        (0.25, None, False),
    ]
    first, second = claims({"prefer": STAGE})
    assert (first.over, second.over) == ("40 pairs", "40 pairs")
    assert first.interval
    assert not second.interval
    with pytest.raises(DataError, match="must be a share from 0 to 1"):
        baseline_bars("prefer", {"test_accuracy": 90})
