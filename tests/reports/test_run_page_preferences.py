"""The report's section on preference tuning: its figures, over how many pairs, and nothing when it was not run."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import DataError
from scratchlm.reports.claims import claims, preference_bars
from scratchlm.reports.run_page import render_report
from tests.reports.test_run_page import Page, poison

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
        "Say it <b>politely</b>.", "(nothing)", "A GPT learned to answer as people like it.",
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
    bars = preference_bars(STAGE)
    assert [(bar.value, bar.low, bar.is_ours) for bar in bars] == [
        (0.9, 0.77, True),
        (0.6, None, False),
        (0.25, None, False),
    ]
    first, second = claims({"prefer": STAGE})
    assert (first.over, second.over) == ("40 pairs", "40 pairs")
    assert first.interval
    assert not second.interval
    with pytest.raises(DataError, match="shares of one"):
        preference_bars({"test_accuracy": 90})
