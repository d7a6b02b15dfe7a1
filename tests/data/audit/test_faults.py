import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.data.audit import faults as faults_module
from scratchlm.data.audit.faults import (
    N_EXAMPLES,
    ByteFaults,
    TextFaults,
    decoded_leniently,
    repaired_mojibake,
)


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
        patch.setattr(faults_module, "READ_BYTES", read_bytes)
        assert read(path) == whole
    joined = "".join(parts)
    n_crlf = joined.count("\r\n")
    assert (whole[1].n_crlf, whole[1].n_cr) == (n_crlf, joined.count("\r") - n_crlf)
    assert (whole[1].n_lf, whole[1].first_invalid) == (joined.count("\n") - n_crlf, len(joined.encode()))


def test_a_missing_or_half_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.txt")
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"word " * 1000)[:-12])
    with pytest.raises(DataError, match="is not a complete gzip file"):
        read(tmp_path / "half.gz")


def found(text: str) -> dict[str, int]:
    faults = TextFaults()
    faults.add(text, "here")
    return {row["name"]: row["n"] for row in faults.figures()["faults"]}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("caf\ufffd", {"replacement": 1}),
        ("cafÃ© and donâ€™t", {"mojibake": 2}),
        ("don\x92t \x93quoted\x94", {"c1_control": 3}),
        ("a\x00b\x1b[31m", {"control": 2}),
        ("line\r\n", {"carriage_return": 1}),
        ("zero\u200bwidth soft\u00adhyphen", {"zero_width": 2}),
        ("\u202eturned", {"bidirectional": 1}),
        ("1\u00a0000", {"unusual_space": 1}),
        ("\ue000 and \ud800", {"private_use": 2}),
        ("AT&amp;T &#39;", {"html_entity": 2}),
    ],
)
def test_each_kind_of_fault_is_found(text, kinds):
    assert found(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "Plain English, 100%: \"yes\" & 'no'\n\ttabs\n",
        "« voilà\u202f», « ÉTÉ», naïve, Ärger, Übermut, Århus".replace("\u202f", ""),
        "Ελληνικά, Русский, 日本語, العربية, 👩\u200d👧",
        "£5 — “quoted” … ½",
    ],
)
def test_good_text_of_many_languages_is_left_alone(text):
    assert found(text) == {}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@given(st.text(st.sampled_from("éüñç’“”€–…"), min_size=1, max_size=5))
def test_what_a_wrong_decoding_did_is_found_and_undone(encoding, text):
    try:
        broken = text.encode().decode(encoding)
    except UnicodeDecodeError:  # Windows-1252 has five holes
        return
    assert repaired_mojibake(broken) == text
    faults = TextFaults()
    faults.add(f"a {broken} b", "here")
    (row,) = faults.figures()["faults"]
    assert (row["name"], row["examples"][0]["note"]) == ("mojibake", f"should be {text!r}")


def test_a_place_is_shown_with_its_surroundings():
    faults = TextFaults()
    faults.add("they don\x92t know", "a.txt line 3")
    (row,) = faults.figures()["faults"]
    assert row["examples"] == [
        {
            "where": "a.txt line 3",
            "before": "they don",
            "found": "\x92",
            "after": "t know",
            "note": "U+0092 in Windows-1252 ’",
        }
    ]


def test_rows_and_places_are_counted_apart_and_examples_are_few():
    faults = TextFaults()
    for number in range(10):
        faults.add("&amp; and &amp;", f"line {number}")
    (row,) = faults.figures()["faults"]
    assert (row["n"], row["rows"], len(row["examples"])) == (20, 10, N_EXAMPLES)


def test_special_tokens_are_found_the_longest_first_and_a_tokenizers_own_too():
    faults = TextFaults(special=["@end@"])
    faults.add("<|endoftext|> [INST] hi [/INST]<|im_start|>user @end@ <b> a<|b", "here")
    named = {row["token"]: row["n"] for row in faults.figures()["special_tokens"]}
    assert named == {"<|endoftext|>": 1, "[INST]": 1, "[/INST]": 1, "<|im_start|>": 1, "@end@": 1}


@given(st.text())
def test_any_text_can_be_looked_through(text):
    faults = TextFaults()
    faults.add(text, "here")
    for row in faults.figures()["faults"]:
        assert row["n"] >= row["rows"] == 1
        assert row["examples"][0]["found"] in text
