from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.data.audit import byte_faults
from scratchlm.data.audit.byte_faults import ByteFaults, decoded_leniently


def read(path) -> tuple[str, ByteFaults]:
    faults = ByteFaults()
    return "".join(decoded_leniently(path, faults)), faults


def test_good_text_comes_back_unchanged(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("é 猫\nx\n".encode())
    text, faults = read(path)
    assert text == "é 猫\nx\n"
    assert faults == ByteFaults(n_bytes=9, n_lf=2)


def test_bytes_that_are_no_utf8_are_counted_and_placed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("né ".encode() + b"caf\xe9 \x93quoted\x94")
    text, faults = read(path)
    assert text == "né caf\ufffd \ufffdquoted\ufffd"
    assert (faults.n_invalid, faults.first_invalid) == (3, 7)


def test_a_mark_at_the_start_is_dropped_and_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhi\0")
    text, faults = read(path)
    assert text == "hi\0"
    assert (faults.has_byte_order_mark, faults.n_zero) == (True, 1)


def test_a_zipped_file_is_counted_unzipped(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"one\r\ntwo\r\n"))
    text, faults = read(path)
    assert text == "one\r\ntwo\r\n"
    assert (faults.n_bytes, faults.n_crlf, faults.n_lf) == (10, 2, 0)


@given(st.lists(st.sampled_from(["a", "é", "猫", "\r", "\n", "\r\n", "\0"]), max_size=30), st.integers(1, 7))
def test_the_size_of_a_read_never_changes_the_counts(tmp_path_factory, parts, read_bytes):
    path = tmp_path_factory.mktemp("a") / "a.txt"
    path.write_bytes("".join(parts).encode() + b"\xff")
    whole = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_faults, "READ_BYTES", read_bytes)
        assert read(path) == whole
    joined = "".join(parts)
    n_crlf = joined.count("\r\n")
    assert (whole[1].n_crlf, whole[1].n_cr) == (n_crlf, joined.count("\r") - n_crlf)
    assert (whole[1].n_lf, whole[1].first_invalid) == (joined.count("\n") - n_crlf, len(joined.encode()))


def test_a_missing_or_half_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="must be a readable file"):
        read(tmp_path / "none.txt")
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"word " * 1000)[:-12])
    with pytest.raises(DataError, match="must be a whole gzip file"):
        read(tmp_path / "half.gz")
