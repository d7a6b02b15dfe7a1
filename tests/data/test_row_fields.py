import logging

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.row_fields import RowFields, RowNotes, is_instruction


def fields(row):
    return RowFields(row, where="a.jsonl line 1", needs="a request")


def test_names_are_found_in_any_case_of_letters_and_the_first_with_a_value_counts():
    row = fields({" Prompt ": "a", "Instruction": None, "question": "c", "id": 7, "empty": ""})
    assert row.text("instruction") == "a"
    assert row.unused(()) == ["question", "id"]
    assert row.unused({"c"}) == ["id"]  # the same text was read elsewhere


def test_input_is_the_request_only_where_nothing_else_is():
    assert fields({"input": "a", "output": "b"}).request() == ("a", "")
    assert fields({"instruction": "a", "input": "b"}).request() == ("a", "b")
    assert fields({"instruction": " ", "context": "b"}).request() == ("b", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], r"line 1 must be an object with a request, got \[\]"),
        ({"a": 1}, "must have text under 'instruction', got only 'a'; .* --columns instruction=FIELD"),
        ({}, "must have text under 'instruction', got only no field"),
        ({"prompt": 4}, "must have text under 'prompt', got 4"),
        ({"message_id": "x", "parent_id": None, "text": "a", "role": "prompter"}, r"tree of messages \(OpenAssistant"),
        ({"images": ["a.png"], "prompt": "a"}, "must be text only, .*, got a field 'images'"),
        ({"prompt": "a", "completion": "b", "label": True}, r"labelled good or bad \(KTO's form\), got label=True"),
    ],
)  # fmt: skip
def test_rows_of_another_form_are_refused_by_name(row, message):
    with pytest.raises(DataError, match=message):
        fields(row).text("instruction", is_needed=True)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "", "completion": ""}, True),
        ({"Question": "", "ANSWER": ""}, True),
        ({"conversations": []}, True),
        ({"data": ["a", "b"]}, True),
        ({"data": "a"}, False),
        ({"prompt": ""}, False),
        ({"text": "", "label": ""}, False),
        ({"message_tree_id": "", "text": ""}, True),
    ],
)
def test_instruction_data_is_known_by_its_fields(row, expected):
    assert is_instruction(row) is expected


def test_rows_are_counted_once_for_each_reason_and_the_first_is_named():
    notes = RowNotes()
    for where in ("line 2", "line 2", "line 5"):
        notes.add("an answer is empty", where=where)
    notes.add("a request is empty", where="line 5")
    assert notes.sentences() == [
        "In 2 rows an answer is empty (the first: line 2).",
        "In 1 row a request is empty (line 5).",
    ]


def test_unused_fields_are_named_once(caplog):
    notes = RowNotes()
    notes.leave_unused(["id", "source"])
    notes.leave_unused(["source", "url"])
    with caplog.at_level(logging.WARNING):
        notes.log()
    assert caplog.messages == ["Fields not used: id, source, url."]
