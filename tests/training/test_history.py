"""The run's log survives being killed in the middle of a line."""

import json

import pytest

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
    history.truncate_after(5)
    history.append({"step": 2})
    assert history.records() == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("zeros", [0, 1, 300])
def test_a_log_survives_a_writer_killed_after_any_byte(tmp_path, zeros):
    """Also inside a character, also when a machine that lost power left zero bytes behind it."""
    history = History(tmp_path / "m.jsonl")
    text = "Zürich 😀"
    line = json.dumps({"step": 2, "text": text}, ensure_ascii=False).encode() + b"\n"
    whole = {"step": 1, "text": text}
    for n_bytes in range(len(line) + 1):
        history.path.unlink(missing_ok=True)
        history.append(whole)
        with history.path.open("ab") as file:
            file.write(line[:n_bytes] + b"\0" * zeros)
        survivors = [whole] + ([{"step": 2, "text": text}] if n_bytes >= len(line) - 1 else [])
        assert history.records() == survivors
        history.append({"step": 3})
        assert history.records() == [*survivors, {"step": 3}]
        history.truncate_after(9)
        assert history.records() == [*survivors, {"step": 3}]
        assert b"\0" not in history.path.read_bytes()


def test_a_damaged_line_in_the_middle_is_left_out_and_named(tmp_path, caplog):
    history = History(tmp_path / "m.jsonl")
    for bad in (b"nonsense", b"[1]", b'{"step": "x"}', b"\xff\xfe", b'{"a": ' * 9999, b"\0\0"):
        history.path.write_bytes(b'{"step": 1}\n' + bad + b'\n{"step": 3}\n')
        caplog.clear()
        assert history.records() == [{"step": 1}, {"step": 3}]
        assert ("line 2 is not a complete record" in caplog.text) is (bad != b"\0\0")


def test_winding_back_forgets_what_came_after(tmp_path):
    history = History(tmp_path / "m.jsonl")
    for step in range(5):
        history.append({"step": step})
    history.truncate_after(2)
    assert [record["step"] for record in history.records()] == [0, 1, 2]


def test_a_missing_log_is_empty(tmp_path):
    history = History(tmp_path / "m.jsonl")
    history.truncate_after(3)
    assert history.records() == []
