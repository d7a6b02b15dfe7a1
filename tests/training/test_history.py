"""The run's log survives being killed in the middle of a line."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import DataError
from scratchlm.training.history import History


def test_records_come_back_in_order(tmp_path):
    history = History(tmp_path / "m.jsonl")
    for step in range(3):
        history.append({"step": step, "text": "ü\n"})
    assert history.records() == [{"step": step, "text": "ü\n"} for step in range(3)]


def test_half_a_last_line_is_dropped(tmp_path):
    history = History(tmp_path / "m.jsonl")
    history.append({"step": 1})
    with history.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert history.records() == [{"step": 1}]
    history.wind_back(5)
    history.append({"step": 2})
    assert history.records() == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    history = History(tmp_path / "m.jsonl")
    history.path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        history.records()


def test_winding_back_forgets_what_came_after(tmp_path):
    history = History(tmp_path / "m.jsonl")
    for step in range(5):
        history.append({"step": step})
    history.wind_back(2)
    assert [record["step"] for record in history.records()] == [0, 1, 2]


def test_a_missing_log_is_empty(tmp_path):
    history = History(tmp_path / "m.jsonl")
    history.wind_back(3)
    assert history.records() == []
