"""Files appear whole or not at all, and readers name what is wrong."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.atomic_replace import PARTIAL_MARK, remove_partials
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError, DataError
from scratchlm.core.files import (
    MAX_SETTINGS_BYTES,
    check_replaceable,
    new_folder,
    parse_json,
    read_bytes,
    read_json,
    read_utf8,
    write_bytes,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back_and_nothing_else_stays(tmp_path):
    write_text(tmp_path / "a.txt", "Zürich\r\n\n")
    write_json(tmp_path / "b.json", {"x": [1, None, "é"]})
    assert read_bytes(tmp_path / "a.txt") == "Zürich\r\n\n".encode()
    assert read_utf8(tmp_path / "a.txt") == "Zürich\r\n\n"
    assert read_json(tmp_path / "b.json") == {"x": [1, None, "é"]}
    assert names(tmp_path) == ["a.txt", "b.json"]


def test_a_failing_write_leaves_the_older_file_and_no_partial_one(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    write_text(target, "older")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match="could not be written: No space left on device; what was there is unchanged"
    ):
        write_text(target, "newer", error=CheckpointError)
    assert target.read_text() == "older"
    assert names(tmp_path) == ["a.txt"]


def test_writing_into_a_folder_that_is_missing_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file or directory"):
        write_text(tmp_path / "missing" / "a.txt", "x")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_writer_killed_at_any_moment_leaves_one_of_the_two_contents(tmp_path):
    target = tmp_path / "a.bin"
    size = 200_000
    code = (
        "import sys; from scratchlm.core.files import write_bytes\n"
        f"while True:\n  for c in b'ab': write_bytes(sys.argv[1], bytes([c]) * {size})"
    )
    for delay_s in (0.0, 0.003, 0.011):
        with subprocess.Popen([sys.executable, "-c", code, str(target)]) as writer:
            while not target.exists():
                time.sleep(0.001)
            time.sleep(delay_s)
            writer.kill()
        assert target.read_bytes() in (b"a" * size, b"b" * size)
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a.bin"]


def test_json_that_others_could_not_read_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_a_new_folder_appears_with_everything_in_it(tmp_path):
    target = tmp_path / "deep" / "model"
    with new_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(b"123")
        assert not target.exists()
        assert PARTIAL_MARK in folder.name
    assert (target / "sub" / "weights").read_bytes() == b"123"
    assert names(target.parent) == ["model"]


def test_a_new_folder_replaces_the_older_one_as_a_whole(tmp_path):
    for content in ("older", "newer"):
        with new_folder(tmp_path / "model") as folder:
            (folder / content).write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["newer"]


@pytest.mark.parametrize("trouble", [RuntimeError, KeyboardInterrupt])
def test_trouble_while_filling_a_folder_leaves_the_older_one_and_nothing_half_made(tmp_path, trouble):
    with new_folder(tmp_path / "model") as folder:
        (folder / "older").write_text("x")

    def fill_and_fail():
        with new_folder(tmp_path / "model") as folder:
            (folder / "newer").write_text("x")
            raise trouble

    with pytest.raises(trouble):
        fill_and_fail()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["older"]


def test_a_full_disk_while_filling_a_folder_is_our_error(tmp_path):
    def fill():
        with new_folder(tmp_path / "model", error=CheckpointError):
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        fill()
    assert names(tmp_path) == []


def test_a_byte_that_is_no_utf8_is_named_with_its_offset(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Zürich".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8 text: byte 0xfc at byte offset 1"):
        read_utf8(tmp_path / "latin.txt")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfhi")
    assert read_utf8(tmp_path / "bom.txt") == "hi"


@pytest.mark.parametrize("read", [read_bytes, read_utf8, read_json, sha256_of_file])
def test_reading_a_folder_or_nothing_is_the_callers_kind_of_error(tmp_path, read):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path, error=CheckpointError)
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('{"a": NaN}', "got NaN"),
        ("[-Infinity]", "got -Infinity"),
        ('{"a":\n 1,}', "at line 2, column"),
        ("", "at line 1, column 1"),
        ("[" * 200_000, "nested too deeply|at line 1"),
    ],
    ids=["repeated key", "NaN", "infinity", "comma", "empty", "bottomless"],
)
def test_json_that_means_two_things_or_nothing_is_refused(text, message):
    with pytest.raises(DataError, match=message) as caught:
        parse_json(text, where="config.json")
    assert "config.json" in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_any_json_value_survives_the_strict_reader(value):
    assert parse_json(json.dumps(value), where="here") == value


def test_sha256_is_that_of_the_bytes_also_past_one_piece(tmp_path):
    data = os.urandom((1 << 20) + 7)
    write_bytes(tmp_path / "a", data)
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_settings_larger_than_any_real_ones_are_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(" " * (MAX_SETTINGS_BYTES + 1))
    with pytest.raises(DataError, match="has 4,194,305 bytes, more than the 4,194,304"):
        read_json(path)
    assert len(read_utf8(path)) == MAX_SETTINGS_BYTES + 1  # the user's own text has no limit


def test_a_file_of_too_many_values_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" + "0," * 300_000 + "0]")
    with pytest.raises(DataError, match="more than the 209,715 values and 161,319 keys"):
        read_json(path)
    assert len(read_json(path, max_bytes=None)) == 300_001


def test_a_folder_is_replaceable_when_it_holds_nothing_but_its_files(tmp_path):
    check_replaceable(tmp_path / "none", ["a.json"], kind="model folder")
    (tmp_path / "a.json").write_text("{}")
    check_replaceable(tmp_path, ["a.json"], kind="model folder")
    (tmp_path / "b.txt").write_text("dear")
    with pytest.raises(
        CheckpointError, match=r"cannot become the model folder, since it holds other files \(b\.txt\)"
    ):
        check_replaceable(tmp_path, ["a.json"], kind="model folder", error=CheckpointError)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()  # a folder of a file's name
    with pytest.raises(DataError, match=r"a\.json"):
        check_replaceable(tmp_path, ["a.json"], kind="model folder")
