"""Files of answers as columns: the book's form, and what a judge left."""

import json

import pytest

from scratchlm.core.errors import DataError
from scratchlm.reports.comparison_data import read_answer_file

ENTRY = {"instruction": "Say yes.", "input": "", "output": "Yes.", "model_response": "yes"}
HEADER = {"kind": "header", "format": "scratchlm judge 1", "judge": "ollama:llama3", "protocol": "score"}
RESULT = {
    "kind": "result", "scale": [0, 100], "mean": 40.0, "low": 0, "high": 80, "scored": 1, "unparsed": 1, "failed": 1,
    "empty": 1, "unreliable": True,
}  # fmt: skip


def judged(status, score, *replies, **more):
    kept = [
        {"order": "", "attempt": i, "reply": reply, "points": None}
        for i, reply in enumerate(replies, start=1)
    ]
    return {"kind": "item", **ENTRY, "status": status, "score": score, "replies": kept, **more}


@pytest.fixture
def write(tmp_path):
    def write_lines(*records, name="a.jsonl", end="\n"):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(record) for record in records) + end)
        return path

    return write_lines


def test_unjudged_answers_are_scored_by_their_words(write):
    wrong = {**ENTRY, "model_response": "Yes or no"}
    empty = {**ENTRY, "model_response": None, "skill": "yes"}
    column = read_answer_file(write(ENTRY, wrong, empty)).column("mine", run=2)
    assert (column.label, column.scale, column.run) == ("mine", ("token F1", 1.0), 2)
    assert [(one.score, one.right, one.status) for one in column.given] == [
        (1.0, True, "scored"),
        (0.5, False, "scored"),
        (0.0, False, "empty"),
    ]
    assert column.asked[2] == {"instruction": "Say yes.", "input": "", "reference": "Yes.", "skill": "yes"}


def test_the_books_json_list_is_read_as_well(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ENTRY]))
    file = read_answer_file(path)
    assert len(file.entries) == 1
    assert file.judged() == {}


def test_a_judgement_keeps_every_status_and_the_judges_words(write):
    items = [
        judged("scored", 80, "80"),
        judged("unparsed", None, "Quite good.", "As I said."),
        judged("failed", None, problem="no reply"),
        judged("empty", 0),
    ]
    file = read_answer_file(write(HEADER, *items, {"kind": "control", "name": "empty", "score": 0}, RESULT))
    column = file.column("judged", run=0)
    assert column.scale == ("score by ollama:llama3", 100.0)
    assert [(one.score, one.status, one.words) for one in column.given] == [
        (80.0, "scored", "80"),
        (None, "unparsed", "Quite good.\n\nAs I said."),
        (None, "failed", "no reply"),
        (0.0, "empty", ""),
    ]
    told = file.judged()
    assert told["scores"] == [80.0, 0.0]
    assert (told["mean"], told["unparsed"], told["unreliable"], told["max"]) == (40.0, 1, True, 100.0)


def test_the_offline_judges_figures_tell_what_is_exact(write):
    items = [judged("scored", 80, figures={"exact_match": exact}) for exact in (1.0, 0.0)]
    column = read_answer_file(write(HEADER, *items, RESULT)).column("judged", run=0)
    assert [one.right for one in column.given] == [True, False]


def test_half_a_last_line_is_left_out(write):
    path = write(ENTRY, ENTRY, end='\n{"instruction": "Sa')
    assert len(read_answer_file(path).entries) == 2


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([HEADER, judged("scored", 1, "1")], "is an unfinished judgement"),
        ([{"step": 1, "kind": "step"}], "holds no answers"),
        ([ENTRY, {"instruction": "x", "output": "y"}], "answer 2 has no 'model_response'"),
        ([["a"]], "line 2 must be an object, got list"),
    ],
)
def test_what_is_no_file_of_answers_is_refused(write, records, told):
    with pytest.raises(DataError, match=told):
        read_answer_file(write({"kind": "other"}, *records) if records == [["a"]] else write(*records))


def test_damage_in_the_middle_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(ENTRY)}\n{{broken\n{json.dumps(ENTRY)}\n")
    with pytest.raises(DataError, match=r"a\.jsonl line 2 is not valid JSON"):
        read_answer_file(path)
