"""Items under several models: paired by their texts, compared on one scale only, safe for a page."""

import numpy as np
import pytest

from scratchlm.reports.paired_items import LONGEST, Column, ModelAnswer, browser_data, pair_items


def column(label, scores, *, questions=None, score="token F1", most=1.0, **given):
    questions = questions or [f"question {i}" for i in range(len(scores))]
    asked = [{"instruction": q, "input": "", "reference": "yes", "skill": ""} for q in questions]
    answers = [ModelAnswer(text=f"{label} says", score=score, **given) for score in scores]
    return Column(label=label, score_name=score, score_max=most, asked=asked, given=answers)


def test_the_same_question_of_two_models_is_one_item():
    paired = pair_items([column("a", [1, 0]), column("b", [0.5, 0], questions=["question 1", "question 0"])])
    assert [item.instruction for item in paired.items] == ["question 0", "question 1"]
    assert [[answer.score for answer in item.answers] for item in paired.items] == [[1, 0], [0, 0.5]]
    assert [item.spread for item in paired.items] == [1, 0.5]
    assert paired.n_shared == 2


def test_a_question_asked_twice_stays_two_items():
    paired = pair_items(
        [column("a", [1, 0], questions=["q", "q"]), column("b", [0.2, 0.4], questions=["q", "q"])]
    )
    assert [[answer.score for answer in item.answers] for item in paired.items] == [[1, 0.2], [0, 0.4]]


def test_a_model_that_was_not_asked_has_no_answer():
    paired = pair_items([column("a", [1]), column("b", [1, 0])])
    assert [answer is None for answer in paired.items[1].answers] == [True, False]
    assert paired.n_shared == 1
    assert paired.items[1].spread is None


def test_scores_on_different_scales_are_never_compared():
    paired = pair_items([column("a", [1, 0, 1]), column("b", [50, 60, 70], score="score by x", most=100)])
    assert paired.differences == []
    assert [item.spread for item in paired.items] == [None] * 3
    assert paired.scales == [("token F1", 1.0), ("score by x", 100)]


def test_unscored_answers_are_left_out_of_differences_and_counted():
    (one,) = pair_items([column("a", [0.1, 0.2, None, 0.4]), column("b", [0.3, None, 0.5, 0.4])]).differences
    assert (one.one, one.other, one.n) == ("b", "a", 2)
    assert one.mean == pytest.approx(0.1)


def test_a_difference_is_clear_only_when_its_interval_leaves_zero_out():
    draw = np.random.default_rng(0)
    noise = draw.normal(0, 0.1, size=(2, 200))
    near = pair_items([column("a", list(0.5 + noise[0])), column("b", list(0.5 + noise[1]))]).differences[0]
    far = pair_items([column("a", list(0.5 + noise[0])), column("b", list(0.6 + noise[1]))]).differences[0]
    assert not near.is_clear
    assert near.low < near.mean < near.high
    assert far.is_clear
    assert far.mean > 0


def test_the_skill_is_taken_from_whoever_names_it():
    named = column("b", [1])
    named.asked[0]["skill"] = "counting"
    assert pair_items([column("a", [1]), named]).items[0].skill == "counting"


def test_the_page_gets_no_endless_and_no_unprintable_text():
    asked = [{"instruction": "q\x00\u202e", "input": "", "reference": "r" * (2 * LONGEST), "skill": ""}]
    given = [
        ModelAnswer(text="\ud800", score=None, words="w" * (2 * LONGEST), status="unparsed", right=False)
    ]
    one = Column(label="a\x01", score_name="s", score_max=1, asked=asked, given=given)
    data = browser_data(pair_items([one]))
    (item,) = data["items"]
    assert item["q"] == "q␀\ufffd"
    assert len(item["r"]) < LONGEST + 50
    assert f"{LONGEST:,} more characters" in item["r"]
    assert item["a"] == [{"t": "\ufffd", "p": None, "ok": False, "w": item["a"][0]["w"], "st": "unparsed"}]
    assert data["columns"][0]["label"] == "a␁"
