"""Runs beside each other: complete, honest about what is missing, safe against what models write."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.reports.comparison_page import (
    MAX_RUNS,
    comparison_drawings,
    figure_rows,
    render_comparison,
    samples_beside,
    setting_rows,
    skill_rows,
)
from scratchlm.reports.paired_items import Column, ModelAnswer, pair_items
from tests.reports.pages import HOSTILE, Page, poison


@pytest.fixture
def runs():
    data = json.loads(Path(__file__).with_name("run_page_data.json").read_text(encoding="utf-8"))
    stages = {"stages_planned": ["pretrain", "classify", "instruct"]}
    one = {
        "label": "small",
        "state": "complete",
        **data,
        **stages,
        "settings": {"model": {"n_layers": 2, "emb_dim": 64}},
    }
    two = {
        "label": "wide",
        "state": "interrupted",
        **data,
        **stages,
        "settings": {"model": {"n_layers": 4, "emb_dim": 64}},
    }
    judged = {
        "judge": "ollama:llama3",
        "max": 100,
        "mean": 71.5,
        "low": 69,
        "high": 74,
        "scored": 3,
        "unparsed": 2,
        "scores": [60, 70, 84.5],
    }
    return [one, two, {"label": "answers", "state": "complete", "judged": judged}]  # fmt: skip


def paired(text="an answer"):
    asked = [
        {"instruction": f"question {i} {text}", "input": text, "reference": text, "skill": text}
        for i in range(40)
    ]
    given = [ModelAnswer(text=text, score=i / 40, words=text, status="scored") for i in range(40)]
    return pair_items(
        [Column(label=name, score_name="F1", score_max=1, asked=asked, given=given) for name in "ab"]
    )


def test_figures_of_all_runs_stand_beside_each_other_with_their_intervals(runs):
    rows = {row.name: row for row in figure_rows(runs)}
    accuracy = rows["Classifier accuracy"].cells
    assert accuracy[0].interval == accuracy[1].interval != ""
    assert accuracy[2] is None
    score = rows["Score by ollama:llama3"].cells
    assert score[:2] == [None, None]
    assert (score[2].value, score[2].interval, score[2].over) == (
        "71.5",
        "69.0–74.0",
        "3 answers (2 more unparsed)",
    )


def test_only_settings_of_stages_that_ran_are_compared():
    pretraining = {
        "stages_planned": ["pretrain"],
        "settings": {"model": {"n_layers": 2}, "classify": {"lr": 1}, "description": "a"},
    }
    data = {"text": [], "messages": ["m"]}
    tuning = {
        "stages_planned": ["classify"],
        "settings": {"model": {"n_layers": 9}, "classify": {"lr": 1}, "data": data},
    }
    rows = {row.name: (row.values, row.differs) for row in setting_rows([pretraining, tuning])}
    assert rows == {
        "model.n_layers": ([2, None], False),  # one value: nothing to differ from
        "classify.lr": ([None, 1], False),
        "data.messages": ([None, ["m"]], False),
    }


def test_a_setting_that_an_older_run_of_the_same_stage_lacks_differs():
    new, old = (
        {"stages_planned": ["classify"], "settings": {"classify": settings, "data": {"messages": ["m"]}}}
        for settings in ({"lr": 1, "pad": "none"}, {"lr": 1})
    )
    rows = {row.name: row.differs for row in setting_rows([new, old, {"label": "a file of answers"}])}
    assert rows == {"classify.lr": False, "classify.pad": True, "data.messages": False}


def test_the_key_of_a_plot_names_the_runs_that_are_drawn(runs):
    del runs[1]["classify"]
    text = render_comparison({"title": "t", "runs": runs})
    keys = {
        part.split('data-plot="')[1].split('"')[0]: [
            run["label"] for run in runs if f">{run['label']}<" in key
        ]
        for part in text.split('<figure class="curve">')[1:]
        for key in [part.split("</ul>")[0]]
    }
    assert keys["pretrain"] == ["small", "wide"]
    assert keys["classify_accuracy"] == ["small"]


def test_the_losses_interval_is_told_per_token_and_per_byte():
    stage = {"val_loss": 2.0, "bits_per_byte": 1.0, "val_loss_low": 1.9, "val_loss_high": 2.2}
    rows = {row.name: row.cells[0] for row in figure_rows([{"pretrain": stage}])}
    assert rows["Validation loss"].interval == "1.900–2.200"
    assert rows["Bits per byte"].interval == "0.950–1.100"


def test_a_score_says_over_how_many_answers_its_mean_is():
    judged = {"judge": "j", "mean": 50.0, "scored": 7, "empty": 2, "unparsed": 1}
    (row,) = figure_rows([{"judged": judged}])
    assert row.cells[0].over == "9 answers (2 empty, 1 more unparsed)"


def test_a_setting_differs_when_any_run_has_another_value(runs):
    assert {row.name: row.differs for row in setting_rows(runs[:2])} == {
        "model.n_layers": True,
        "model.emb_dim": False,
    }


def test_samples_show_what_each_run_had_last_written_by_then():
    one = {
        "pretrain": {"samples": [{"step": s, "prompt": "Once", "text": f" one {s}"} for s in (0, 100, 200)]}
    }
    two = {
        "pretrain": {"samples": [{"step": s, "prompt": "Once", "text": f"Once two {s}"} for s in (150, 0)]}
    }
    shown = samples_beside([one, two, {}])
    texts = {group["step"]: [text["text"] for text in group["texts"]] for group in shown.items}
    assert texts == {
        0: [" one 0", " two 0"],
        100: [" one 100", " two 0"],
        150: [" one 100", " two 150"],
        200: [" one 200", " two 150"],
    }


def test_of_many_moments_the_last_is_kept_and_the_rest_counted():
    samples = [{"step": step, "prompt": "", "text": "x"} for step in range(100)]
    shown = samples_beside([{"pretrain": {"samples": samples}}])
    assert shown.items[-1]["step"] == 99
    assert len(shown.items) + shown.n_left_out == 100


def test_a_skill_of_one_run_alone_leaves_the_other_empty():
    rows = skill_rows(
        [
            {"instruct": {"by_skill": [{"skill": "a", "n": 1}]}},
            {"instruct": {"by_skill": [{"skill": "b", "n": 2}]}},
        ]
    )
    assert rows == [("a", [{"skill": "a", "n": 1}, None]), ("b", [None, {"skill": "b", "n": 2}])]


@pytest.mark.parametrize("is_hostile", [False, True], ids=["plain", "hostile"])
def test_nothing_that_a_model_wrote_becomes_markup(runs, is_hostile):
    data = {"title": "Three", "runs": runs}
    html = render_comparison(poison(data) if is_hostile else data, paired(HOSTILE if is_hostile else "fine"))
    page = Page(html)
    assert page.wrong == []
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not re.search(r'(?:src|href)="(?!#|data:)', html)


def test_the_policy_allows_the_one_script_of_the_page_and_no_other(runs):
    page = render_comparison({"runs": runs}, paired())
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_items_are_in_the_data_and_only_the_first_few_in_the_page(runs):
    page = render_comparison({"runs": runs}, paired())
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["items"]["items"]) == 40
    assert page.count('<li class="item">') == 10


def test_an_unreliable_judge_is_told_with_the_reason(runs):
    assert "unreliable" not in render_comparison({"runs": runs})
    runs[2]["judged"] |= {"unreliable": True, "doubts": ["an empty answer got 55 of 100"]}
    assert "unreliable: an empty answer got 55 of 100." in render_comparison({"runs": runs})


def test_without_items_the_page_has_no_script_for_them(runs):
    page = render_comparison({"runs": runs[:2]})
    assert "item-list" not in page
    assert "Settings that differ" in page
    assert "1 of 2 settings differ" in page


def test_losses_over_different_vocabularies_are_warned_of(runs):
    runs[1]["pretrain"] = {**runs[1]["pretrain"], "vocab_size": 5}
    runs[0]["pretrain"] = {**runs[0]["pretrain"], "vocab_size": 7}
    assert "Different tokenizers" in render_comparison({"runs": runs})
    runs[1]["pretrain"]["vocab_size"] = 7
    assert "Different tokenizers" not in render_comparison({"runs": runs})


def test_every_plot_of_the_page_can_be_a_file(runs):
    names = [drawing.name for drawing in comparison_drawings(runs)]
    assert names == ["pretrain", "classify_loss", "classify_accuracy", "instruct", "scores-3"]


@pytest.mark.parametrize("n_runs", [0, MAX_RUNS + 1])
def test_none_and_too_many_runs_are_refused(n_runs):
    with pytest.raises(ConfigError, match=f"shows 1 to {MAX_RUNS} runs, got {n_runs}"):
        render_comparison({"runs": [{"label": "a"}] * n_runs})


def test_one_file_of_judged_answers_is_not_told_as_a_comparison(runs):
    page = render_comparison({"runs": runs[2:]}, paired())
    assert "<b>comparison</b>" not in page
    assert "<b>report</b>" in page
    assert "Distribution of judge scores" in page
    assert "<b>comparison</b>" in render_comparison({"runs": runs})
