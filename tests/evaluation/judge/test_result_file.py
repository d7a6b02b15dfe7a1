"""The file of a judgement: it goes on after a kill, and never takes another's place."""

import contextlib
import dataclasses
import json
import sys

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.judge.result_file import (
    Header,
    Journal,
    json_line,
    read_whole_lines,
    remove_results,
)

HEADER = Header(
    judge="fake:a", identity="a", protocol="score", prompt_sha256="p", answers_sha256="f", n_items=2
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "results.jsonl"


def test_replies_are_on_the_disk_at_once(path):
    with Journal(path, HEADER) as journal:
        journal.add("k1", "85")
        now = path.read_text()
    assert now == json_line(HEADER.record()) + json_line({"kind": "reply", "call": "k1", "reply": "85"})


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_run_that_was_killed_in_the_middle_of_a_line_goes_on_without_it(path, cut):
    journal = Journal(path, HEADER)
    journal.add("k1", "85")
    journal.add("k2", "gut: ä")
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal(path, HEADER) as again:
        assert again.known == {"k1": "85"}
        again.add("k2", "gut: ä")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("size", [0, 1, 9, 30])
def test_a_run_that_was_killed_in_its_first_line_begins_anew(path, size):
    Journal(path, HEADER).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    Journal(path, HEADER).close()
    assert path.read_bytes() == whole


def test_a_finished_file_holds_its_replies_too(path):
    journal = Journal(path, HEADER)
    journal.finish(
        [HEADER.record(), {"kind": "item", "replies": [{"call": "k1", "reply": "85", "points": 85}]}]
    )
    with Journal(path, HEADER) as again:
        assert again.known == {"k1": "85"}


def test_a_reply_after_the_end_is_dropped(path):
    journal = Journal(path, HEADER)
    journal.close()
    journal.add("k1", "85")
    assert len(read_whole_lines(path)) == 1


@pytest.mark.parametrize("replies", ["x", None, {}, [1], [{"call": "k1"}], [{"call": 1, "reply": "85"}]])
def test_replies_that_are_none_are_named_with_their_line(path, replies):
    Journal(path, HEADER).close()
    path.write_text(json_line(HEADER.record()) + json_line({"kind": "item", "replies": replies}))
    with pytest.raises(DataError, match="line 2 must hold replies with 'call' and 'reply'"):
        Journal(path, HEADER)


@pytest.mark.parametrize("n_replies", [0, 1])
def test_a_judgement_that_failed_leaves_a_file_only_for_a_reply(path, n_replies):
    with contextlib.suppress(ZeroDivisionError), Journal(path, HEADER) as journal:
        for _ in range(n_replies):
            journal.add("k1", "85")
        raise ZeroDivisionError
    assert path.exists() is (n_replies > 0)


def test_what_a_killed_writer_left_beside_is_removed(path):
    path.parent.mkdir()
    leftover = path.parent / f".{path.name}.partial-123"
    leftover.write_text("half")
    (path.parent / ".other.jsonl.partial-1").write_text("not ours")
    Journal(path, HEADER).close()
    assert sorted(file.name for file in path.parent.iterdir()) == [".other.jsonl.partial-1", path.name]


def test_the_same_judge_under_another_name_goes_on(path):
    """A model folder's path from here and from elsewhere: its weights say that it is the same."""
    with Journal(path, HEADER) as journal:
        journal.add("k1", "85")
    with Journal(path, dataclasses.replace(HEADER, judge="fake:/elsewhere/a")) as again:
        assert again.known == {"k1": "85"}


@pytest.mark.parametrize("field", ["identity", "protocol", "prompt_sha256", "answers_sha256"])
def test_another_judgement_is_refused_and_left_alone(path, field):
    Journal(path, HEADER).close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"{field.replace('_', ' ')} .*--fresh"):
        Journal(path, dataclasses.replace(HEADER, **{field: "other"}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["my notes", "my notes\n", '{"instruction": "Add."}\n', "[1]\n", "{}\n", "\n", "\xff\xfe\n"]
)
def test_a_file_of_something_else_is_never_overwritten(path, content):
    path.parent.mkdir()
    path.write_text(content, encoding="latin-1")
    for act in (lambda: Journal(path, HEADER), lambda: remove_results(path)):
        with pytest.raises(ConfigError, match="is not a result file"):
            act()
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_two_runs_never_write_one_file(path):
    with Journal(path, HEADER) as journal:
        journal.add("k1", "85")
        for act in (lambda: Journal(path, HEADER), lambda: remove_results(path)):
            with pytest.raises(ConfigError, match="in use by another run"):
                act()
        journal.add("k2", "86")
    with Journal(path, HEADER) as again:
        assert again.known == {"k1": "85", "k2": "86"}


def test_an_earlier_judgement_can_be_forgotten(path):
    Journal(path, HEADER).close()
    remove_results(path)
    remove_results(path)
    assert not path.exists()


@pytest.mark.parametrize("line", ["{", "[1]", '{"kind": "reply", "call": 3}'])
def test_a_damaged_line_in_the_middle_is_named(path, line):
    Journal(path, HEADER).close()
    with path.open("a") as file:
        file.write(f"{line}\n" + json_line({"kind": "reply", "call": "k", "reply": "85"}))
    with pytest.raises((DataError, ConfigError), match=r"results\.jsonl"):
        Journal(path, HEADER)


@pytest.mark.parametrize("text", ["ä\u2028\n\r", "\ud800", "\x00", '"}{'])
def test_any_text_is_one_line_and_comes_back(text):
    line = json_line({"reply": text})
    assert line.count("\n") == 1
    assert json.loads(line.encode())["reply"] == text
