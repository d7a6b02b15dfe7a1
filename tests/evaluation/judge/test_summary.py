"""What a judgement comes to."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.evaluation.judge.grading import Grade, Reply
from scratchlm.evaluation.judge.protocols import PROTOCOLS
from scratchlm.evaluation.judge.summary import summarise

SCORE, PAIRWISE = PROTOCOLS["score"], PROTOCOLS["pairwise"]


def scored(*scores):
    return [Grade(status="scored", score=float(score)) for score in scores]


def test_every_item_is_in_one_of_the_counts_and_an_empty_answer_in_the_mean():
    grades = [
        *scored(80, 100),
        Grade(status="empty", score=0.0),
        Grade(status="unparsed", score=None),
        Grade(status="failed", score=None),
    ]
    result = summarise(grades, [], protocol=SCORE)
    assert (result.scored, result.empty, result.unparsed, result.failed, result.n_items) == (2, 1, 1, 1, 5)
    assert (result.mean, result.median, result.n_counted) == (60, 80, 3)
    assert result.deviation == pytest.approx(statistics.stdev([80, 100, 0]))
    assert (result.least, result.most) == (36, 76)  # 180 of 5 x 100 points, and 2 x 100 more


@given(st.lists(st.integers(0, 100), min_size=2, max_size=50))
def test_the_mean_lies_in_its_interval(scores):
    result = summarise(scored(*scores), [], protocol=SCORE)
    assert min(scores) - 1e-9 <= result.low <= result.mean + 1e-9 <= result.high + 2e-9 <= max(scores) + 3e-9
    assert result.least == result.most == pytest.approx(result.mean)


def test_nothing_scored_is_no_mean():
    result = summarise([Grade(status="unparsed", score=None)] * 3, [], protocol=SCORE)
    assert (result.mean, result.low, result.median, result.deviation, result.least, result.most) == (
        None, None, None, None, 0, 100,
    )  # fmt: skip


def test_empty_answers_alone_are_no_mean_of_the_others():
    grades = [Grade(status="empty", score=0.0)] * 2
    assert summarise(grades, [], protocol=SCORE).mean == 0
    result = summarise([*grades, Grade(status="unparsed", score=None)], [], protocol=SCORE)
    assert (result.mean, result.most) == (None, pytest.approx(100 / 3))


def test_the_offline_judges_figures_have_intervals():
    grades = [
        Grade(status="scored", score=100.0 * x, figures=(("exact_match", x),)) for x in (0.0, 1.0, 1.0, 1.0)
    ]
    figure = summarise(grades, [], protocol=SCORE).figures["exact_match"]
    assert figure.mean == 0.75
    assert 0 < figure.low < 0.75 < figure.high <= 1


def pair(ab, ba):
    replies = tuple(
        Reply(order=order, attempt=1, call="", text="", points=points)
        for order, points in (("ab", ab), ("ba", ba))
    )
    return Grade(status="scored", score=(ab + ba) / 2, replies=replies)


def test_a_judge_that_always_takes_the_first_is_found_out():
    result = summarise([pair(100, 0)] * 20, [], protocol=PAIRWISE)
    assert (result.mean, result.pairs.split, result.pairs.first_chosen) == (50, 20, 1.0)
    assert result.pairs.first_low > 0.5


def test_wins_ties_and_losses_are_counted_where_both_orders_agree():
    grades = [pair(100, 100), pair(100, 100), pair(50, 50), pair(0, 0), pair(100, 50), pair(0, 100)]
    pairs = summarise(grades, [], protocol=PAIRWISE).pairs
    assert (pairs.wins, pairs.ties, pairs.losses, pairs.split) == (2, 1, 1, 2)
    assert pairs.first_chosen == pytest.approx(4 / 9)  # a, b's turns: 1 1 / 1 1 ... of nine decided verdicts


def test_the_last_reply_of_an_order_counts():
    unread = Reply(order="ab", attempt=1, call="", text="?", points=None)
    grade = pair(100, 100)
    grade = Grade(status="scored", score=100.0, replies=(unread, *grade.replies))
    assert summarise([grade], [], protocol=PAIRWISE).pairs.wins == 1
