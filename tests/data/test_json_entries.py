"""Files of entries: lists and lines alike, with the place of each in words."""

from __future__ import annotations

import json

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.json_entries import read_json_entries


def test_a_list_and_lines_hold_the_same_entries_at_their_own_places(tmp_path):
    as_list, as_lines = tmp_path / "a.json", tmp_path / "a.JSONL"
    as_list.write_text(json.dumps([{"x": 1}, 2]))
    as_lines.write_text('{"x": 1}\n\n2\n')
    assert read_json_entries(as_list) == [({"x": 1}, f"{as_list} entry 1"), (2, f"{as_list} entry 2")]
    assert read_json_entries(as_lines) == [({"x": 1}, f"{as_lines} line 1"), (2, f"{as_lines} line 3")]


def test_lines_are_read_as_the_caller_wants(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("one\ntwo\n")
    found = read_json_entries(path, parse_line=lambda line, where: (line.upper(), where[-6:]))
    assert [value for value, _ in found] == [("ONE", "line 1"), ("TWO", "line 2")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"x": 1}', "must be a JSON list of entries, found dict"),
        ("a.json", "[1", "a.json"),
        ("a.jsonl", '1\n{"x": 1, "x": 2}', "line 2 must name each key once"),
    ],
)
def test_what_is_no_entries_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_json_entries(tmp_path / name)
