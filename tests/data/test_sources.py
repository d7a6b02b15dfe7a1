import builtins
import gzip
import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError, MissingDependencyError
from scratchlm.data import sources
from scratchlm.data.row_files import RowSettings
from scratchlm.data.sources import find_sources, read_documents, read_pieces, separated_documents
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


def texts(*paths: Path | str, **settings) -> list[str]:
    return [document.text for document in read_documents(list(paths), **settings)]


def write_jsonl(path: Path, *values: object) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def test_files_come_in_the_order_named_and_sorted_inside_folders(tmp_path):
    for name in ("b/2.txt", "b/1.md", "b/deep/3.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    found = find_sources([tmp_path / "b", tmp_path / "a.txt"])
    assert [f.relative_to(tmp_path).as_posix() for f in found] == [
        "b/1.md",
        "b/2.txt",
        "b/deep/3.txt",
        "a.txt",
    ]


def test_a_folder_gives_only_visible_files_of_known_kinds(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.png").write_bytes(b"\x89PNG")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.txt").write_text("c")
    assert find_sources(tmp_path) == [tmp_path / "a.txt"]


def test_a_glob_is_expanded_and_a_file_reached_twice_is_read_once(tmp_path):
    (tmp_path / "a1.txt").write_text("a1")
    (tmp_path / "a2.txt").write_text("a2")
    assert texts(tmp_path / "a*.txt", tmp_path / "a1.txt") == ["a1", "a2"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    (tmp_path / "what[1].txt").write_text("me")
    assert texts(tmp_path / "what[1].txt") == ["me"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.txt", "does not exist"),
        ("*.nothing", "matches no text file"),
        ("empty_folder", "has no text file in it"),
    ],
)
def test_paths_without_text_are_named(tmp_path, name, message):
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        find_sources(tmp_path / name)
    assert name in str(caught.value)


def test_no_path_at_all_is_an_error():
    with pytest.raises(DataError, match="at least one file"):
        find_sources([])


def test_plain_text_is_one_document_with_its_line_ends_and_without_its_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\nthree")
    (tmp_path / "b.md").write_text("# b")
    assert texts(tmp_path) == ["one\r\ntwo\n\nthree", "# b"]


def test_gzip_of_text_and_jsonl_reads_like_the_file(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("früh".encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "spat"}\n'))
    assert texts(tmp_path) == ["früh", "spat"]


def test_each_jsonl_line_is_a_document_and_blank_lines_are_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"text": "one"}\n\n{"text": "tw\\u00f6", "id": 2}', encoding="utf-8")
    assert [(d.text, d.origin) for d in read_documents(path)] == [
        ("one", f"{path} line 1"),
        ("twö", f"{path} line 3"),
    ]


@pytest.mark.parametrize("is_zipped", [False, True])
def test_parquet_rows_are_documents(tmp_path, is_zipped):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2], "story": ["one", "two"]}), path)
    if is_zipped:
        path.with_name("a.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = path.with_name("a.parquet.gz")
    assert texts(path, rows=RowSettings(text_field="story")) == ["one", "two"]
    with pytest.raises(DataError, match=r"has no field 'text' \(its fields: 'id', 'story'\)"):
        texts(path)


def test_a_parquet_row_without_text_is_named_or_counted(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None]}), path)
    with pytest.raises(DataError, match="row 2 has NoneType in 'text'"):
        texts(path)
    assert texts(path, skip_bad_lines=True) == ["one"]


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"a\.parquet is not a complete parquet file"):
        texts(path)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def no_pyarrow(name, *args, **settings):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **settings)

    monkeypatch.setattr(builtins, "__import__", no_pyarrow)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match=r"pip install 'scratchlm\[hub\]'"):
        texts(tmp_path / "a.parquet")


@pytest.mark.parametrize("offset", [0, 5, (1 << 20) - 1, 1 << 20, (1 << 20) + 7, 3_000_000])
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_text_that_is_not_utf8_is_named_with_its_byte_offset(tmp_path, offset, suffix):
    data = b"a" * offset + b"\xe4" + b"b" * 10  # a WINDOWS-1252 letter
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(data, 1) if suffix.endswith("gz") else data)
    with pytest.raises(DataError, match=rf"byte 0xe4 at byte offset {offset} \(") as caught:
        texts(path)
    assert str(path) in str(caught.value)


def test_a_character_cut_by_the_end_of_the_file_is_named_with_its_offset(tmp_path):
    (tmp_path / "a.txt").write_bytes("aß".encode()[:-1])
    with pytest.raises(DataError, match="byte 0xc3 at byte offset 1 "):
        texts(tmp_path / "a.txt")


def test_a_jsonl_line_that_is_not_utf8_is_named_with_line_and_offset(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xe4"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl line 2 is not UTF-8.* byte offset 24 "):
        texts(tmp_path / "a.jsonl")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b" \n\t\n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt is empty or has only white space"):
        texts(tmp_path / "a.txt")
    (tmp_path / "b.jsonl").write_bytes(content.removeprefix(b"\xef\xbb\xbf"))
    with pytest.raises(DataError, match=r"b\.jsonl has no document"):
        texts(tmp_path / "b.jsonl")


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    whole = gzip.compress(b"The cat sat on the mat. " * 1000)
    (tmp_path / "a.txt.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt.gz").write_bytes(b"not gzip at all")
    (tmp_path / "c.txt.gz").write_bytes(whole[:20] + b"\xff\xff\xff" + whole[23:])
    for name in ("a", "b", "c"):
        with pytest.raises(DataError, match=rf"{name}\.txt\.gz is not a complete gzip file"):
            texts(tmp_path / f"{name}.txt.gz")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"', "line 2 is not valid JSON"),
        ("[1, 2]", "line 2 must be a JSON object with the field 'text', got list"),
        ('{"body": "b", "id": 1}', "line 2 has no field 'text' (its fields: 'body', 'id')"),
        ('{"text": 5}', "line 2 has int in 'text'"),
        ('{"text": "  "}', "line 2 has no text in 'text'"),
        ('{"text": "\\ud800"}', "line 2 is not valid Unicode: a lone surrogate"),
        ("[" * 100_000, "line 2 is "),
    ],
)
def test_a_bad_line_is_named_or_skipped_and_counted(tmp_path, caplog, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a"}}\n{line}\n{{"text": "c"}}\n', encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        texts(path)
    complaints: list[str] = []
    assert texts(path, skip_bad_lines=True, on_skip=complaints.append) == ["a", "c"]
    assert len(complaints) == 1
    assert message in complaints[0]
    with caplog.at_level(logging.WARNING):  # whoever does not count is told
        assert texts(path, skip_bad_lines=True) == ["a", "c"]
    assert "skipped 1 lines" in caplog.text


def test_a_file_of_nothing_but_bad_lines_is_an_error(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", {"body": 1}, {"body": 2})
    with pytest.raises(DataError, match="has no document besides 2 skipped bad lines"):
        texts(path, skip_bad_lines=True)


def test_pieces_are_bounded_and_join_to_the_document(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE_CHARS", 50)
    text = "A short line.\n\nAnother, longer one it is.\n" * 20 + "x" * 400 + " 漢字" * 30
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    write_jsonl(tmp_path / "b.jsonl", {"text": text})
    pieces = list(read_pieces(find_sources(tmp_path)))
    assert "".join(piece.text for piece in pieces) == text + text
    assert max(len(piece.text) for piece in pieces) <= 100
    assert sum(piece.ends_document for piece in pieces) == 2


def test_pieces_have_the_same_gpt2_ids_as_the_whole(real_data, monkeypatch):
    tokenizer = load_gpt2_tokenizer(
        real_data / "gpt2_bpe" / "encoder.json", real_data / "gpt2_bpe" / "vocab.bpe"
    )
    monkeypatch.setattr(sources, "PIECE_CHARS", 300)
    path = real_data / "text" / "the-verdict.txt"
    pieces = list(read_pieces([path]))
    assert len(pieces) > 30
    ids = [i for piece in pieces for i in tokenizer.encode(piece.text)]
    assert ids == tokenizer.encode(path.read_text(encoding="utf-8"))


@given(
    st.lists(st.text(st.sampled_from("ab<|\n "), max_size=12), max_size=8),
    st.integers(1, 9),
    st.sampled_from(["<|end|>", "--", "<"]),
)
def test_documents_between_separators_are_those_of_a_plain_split(parts, size, separator):
    whole = separator.join(parts)
    stretches = [whole[start : start + size] for start in range(0, len(whole), size)]
    expected = [text.strip("\r\n") for text in whole.split(separator) if text.strip()]
    assert list(separated_documents(stretches, separator)) == expected


def test_a_file_with_separators_holds_many_documents(tmp_path):
    path = tmp_path / "valid.txt"
    path.write_text("u don't have to be scared.\n<|endoftext|>\n\nOnce upon\n\na time.\n<|endoftext|>\n")
    found = list(read_documents(path, document_separator="<|endoftext|>"))
    assert [document.text for document in found] == ["u don't have to be scared.", "Once upon\n\na time."]
    assert found[1].origin == f"{path} document 2"
    assert len(list(read_documents(path))) == 1
    path.write_text("<|endoftext|>\n<|endoftext|>")
    with pytest.raises(DataError, match="has no text besides '<|endoftext|>'".replace("|", r"\|")):
        list(read_documents(path, document_separator="<|endoftext|>"))
