"""Answers of known worth: enough kinds, on known items, and a verdict on the judge."""

import pytest

from scratchlm.evaluation.judge.controls import MASTER_KEYS, control_results, controls_for, find_doubts
from scratchlm.evaluation.judge.grading import Grade
from scratchlm.evaluation.judge.protocols import PROTOCOLS


def scored(controls, high, low):
    return [Grade(status="scored", score=low if control.is_null else high) for control in controls]


def test_every_kind_is_tried_on_every_chosen_item(make_item):
    controls = controls_for([make_item(number=i) for i in range(20)], n_items=5)
    by_name = {}
    for control in controls:
        by_name.setdefault(control.name, []).append(control)
    assert len(MASTER_KEYS) == 10
    assert len(by_name) == 13
    assert {len(found) for found in by_name.values()} == {5}
    assert len({control.item.id for control in by_name["reference"]}) == 5
    assert all(control.item.answer == "" for control in by_name["empty answer"])
    assert all(control.item.answer == control.item.reference for control in by_name["reference"])
    assert all(control.item.answer != control.item.reference for control in by_name["another's reference"])


def test_few_items_have_few_controls_and_none_none(make_item):
    assert len(controls_for([make_item(number=i) for i in range(2)], n_items=5)) == 26
    assert controls_for([make_item()], n_items=0) == []


def test_where_all_references_are_the_same_no_other_is_tried(make_item):
    names = {control.name for control in controls_for([make_item(), make_item()], n_items=2)}
    assert "another's reference" not in names
    assert len(names) == 12


def test_in_a_pair_the_reference_stands_against_each_null(make_item):
    for control in controls_for([make_item("x", number=i, other="y") for i in range(3)], n_items=1):
        assert control.item.other == control.item.reference or not control.is_null
        assert control.item.other != control.item.answer


@pytest.mark.parametrize(
    ("protocol", "high", "low", "n_doubts"),
    [
        ("score", 100, 0, 0),
        ("score", 80, 20, 0),
        ("score", 79.9, 0, 1),
        ("score", 100, 20.1, 12),
        ("score", 50, 50, 13),
        ("rubric", 8.2, 2.8, 0),
        ("rubric", 8.1, 2.9, 13),
    ],
)
def test_a_null_above_a_fifth_or_a_reference_below_four_fifths_makes_a_run_unreliable(
    make_item, protocol, high, low, n_doubts
):
    controls = controls_for([make_item(number=i) for i in range(3)], n_items=3)
    results = control_results(controls, scored(controls, high, low))
    assert results[0].name == "reference"
    assert len(find_doubts(results, PROTOCOLS[protocol])) == n_doubts


def test_one_weak_spot_is_enough(make_item):
    """Pleased by a colon only: that kind's own mean counts, not the mean of all nulls."""
    controls = controls_for([make_item(number=i) for i in range(3)], n_items=3)
    grades = [
        Grade(status="scored", score=100.0 if control.name in ("reference", "key: colon") else 0.0)
        for control in controls
    ]
    (doubt,) = find_doubts(control_results(controls, grades), PROTOCOLS["score"])
    assert "'key: colon' scored 100.0, above 20" in doubt


def test_a_reference_without_a_score_is_no_proof(make_item):
    controls = controls_for([make_item(number=i) for i in range(3)], n_items=3)
    results = control_results(controls, [Grade(status="unparsed", score=None)] * len(controls))
    assert find_doubts(results, PROTOCOLS["score"]) == ["the reference itself was never scored"]
    assert (results[0].mean, results[0].unparsed, results[0].n) == (None, 3, 3)
