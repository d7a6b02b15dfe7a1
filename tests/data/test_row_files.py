"""Every form in which rows come: format by format, zipped or not, in every encoding, whatever the file's name."""

import bz2
import csv
import gzip
import io
import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.row_files import RowSettings, find_row_files, read_rows
from scratchlm.data.sources import find_sources

ROWS = [
    {"label": label, "text": text}
    for label, text in [
        ("ham", "Grüße aus Köln, bis bald"),
        ("spam", 'WIN "big" now; call | text'),
        ("ham", "two\nlines of it"),
        ("spam", "plain words"),
    ]
]


def as_csv(delimiter: str) -> str:
    held = io.StringIO(newline="")
    writer = csv.DictWriter(held, fieldnames=["label", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return held.getvalue()


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
COLUMNS = {name: [row[name] for row in ROWS] for name in ("label", "text")}
TEXTS = {
    "comma": as_csv(","),
    "semicolon": as_csv(";"),
    "tab": as_csv("\t"),
    "bar": as_csv("|"),
    "lines": LINES,
    "lines with gaps": "\n" + LINES.replace("\n", "\r\n\r\n"),
    "list": json.dumps(ROWS, ensure_ascii=False),
    "indented list": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "columns": json.dumps(COLUMNS, ensure_ascii=False),
    "indented columns": json.dumps(COLUMNS, ensure_ascii=False, indent=1),
    "pandas columns": json.dumps({name: dict(enumerate(column)) for name, column in COLUMNS.items()}),
    "pandas split": json.dumps(
        {"columns": ["label", "text"], "index": [0, 1, 2, 3], "data": [list(row.values()) for row in ROWS]}
    ),
    "data": json.dumps({"version": 1, "data": ROWS}, ensure_ascii=False),
    "train": json.dumps({"train": ROWS}, ensure_ascii=False, indent=4),
    "nested columns": json.dumps({"train": COLUMNS}, ensure_ascii=False),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be", "windows-1252"])
@pytest.mark.parametrize("form", TEXTS)
def test_every_text_form_gives_the_same_rows(tmp_path, form, encoding):
    data = TEXTS[form].encode(encoding)
    settings = RowSettings(encoding=encoding if encoding in ("utf-16-be", "windows-1252") else "")
    for name, content in (("rows", data), ("rows.csv", data), ("rows.txt", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        assert [row.value for row in read_rows(tmp_path / name, settings)] == ROWS


@pytest.mark.parametrize("name", ["rows.parquet", "rows.parquet.gz", "rows", "rows.csv"])
def test_parquet_gives_the_same_rows_whatever_its_name(tmp_path, name):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    held = io.BytesIO()
    parquet.write_table(pyarrow.table(COLUMNS), held)
    data = held.getvalue()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert [row.value for row in read_rows(tmp_path / name)] == ROWS


def test_places_are_lines_entries_and_rows(tmp_path):
    path = tmp_path / "a"
    for form, place in [("lines with gaps", "line 8"), ("list", "entry 4"), ("train", "train, entry 4")]:
        path.write_text(TEXTS[form], encoding="utf-8", newline="")
        last = list(read_rows(path))[-1]
        assert last.where.endswith(place), last.where


def test_one_object_on_one_line_is_a_row_and_lists_of_messages_are_no_tables(tmp_path):
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for value in ({"text": "a", "label": 1}, {"messages": said}, {"chosen": said, "rejected": said}):
        (tmp_path / "a.jsonl").write_text(json.dumps(value))
        assert [row.value for row in read_rows(tmp_path / "a.jsonl")] == [value]
    with_tools = {"messages": said, "tools": [{"type": "function"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(with_tools))
    assert [row.value for row in read_rows(tmp_path / "a.jsonl")] == [with_tools]
    (tmp_path / "a.json").write_text(json.dumps({"messages": [said, said]}))
    assert [row.value for row in read_rows(tmp_path / "a.json")] == [{"messages": said}] * 2


def test_several_lists_of_rows_in_one_file_are_refused_by_name(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"train": ROWS, "test": ROWS}))
    with pytest.raises(DataError, match=r"several lists of rows \('train', 'test'\)"):
        list(read_rows(tmp_path / "a.json"))


def test_columns_are_renamed_by_name_in_any_case_or_by_number(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Mood,Said\nham,hello there\n")
    expected = {"text": "hello there", "label": "ham"}
    for settings in (
        RowSettings(text_field="said", label_field="mood"),
        RowSettings(columns=("text=Said", "label=Mood")),
        RowSettings(text_field="Said", columns=("label=mood",)),
    ):
        assert [row.value for row in read_rows(path, settings)] == [expected]
    path.write_text("a1,ham,hello there\na2,ham,hello you\n")
    found = list(read_rows(path, RowSettings(text_field="3", label_field="2")))
    assert [row.value["text"] for row in found] == ["hello there", "hello you"]
    with pytest.raises(DataError, match="line 2 has no column 'story' for text, only"):
        list(read_rows(path, RowSettings(text_field="story")))


def test_settings_that_mean_nothing_are_refused_before_the_file():
    for settings, message in [
        ({"columns": ("answers=x",)}, "OURS=THEIRS with OURS once among text, label"),
        ({"columns": ("text=a", "text=b")}, "OURS=THEIRS"),
        ({"text_field": "a", "columns": ("text=b",)}, "must be named once, got 'b' and 'a'"),
        ({"encoding": "utf-9"}, "must be a text encoding that Python knows, got 'utf-9'"),
        ({"encoding": "base64"}, "must be a text encoding that Python knows, got 'base64'"),
        ({"encoding": "punycode"}, "must be a text encoding that Python knows, got 'punycode'"),
        ({"delimiter": "ab"}, "must be one character"),
    ]:
        with pytest.raises(ConfigError, match=message):
            RowSettings(**settings)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.tsv", "a"])
def test_what_is_no_table_is_called_by_its_name(tmp_path, name):
    for data, kind in [
        (b"%PDF-1.4\n%\xe2\xe3", "a PDF document"),
        (bz2.compress(b"label,text"), "a bzip2 file"),
        ("label\ttext\nham\thello\n".encode("utf-16-le"), "text in UTF-16-LE without a byte-order mark"),
        (b"PK\x03\x04\x14\0xl/worksheets", "an Office document"),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"must be text, got {kind}") as caught:
            list(read_rows(tmp_path / name))
        assert "iconv" not in str(caught.value)


def test_bytes_of_another_encoding_are_named_with_place_and_flag(tmp_path):
    (tmp_path / "a.csv").write_bytes("label,text\nham,Grüße\n".encode("latin-1"))
    (tmp_path / "a.jsonl").write_bytes('{"text": "a"}\n{"text": "Grüße"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"byte 0xfc at byte offset 17 .*--encoding windows-1252"):
        list(read_rows(tmp_path / "a.csv"))
    complaints: list[str] = []
    assert len(list(read_rows(tmp_path / "a.jsonl", on_bad=complaints.append))) == 1
    assert "line 2 is not UTF-8 text: byte 0xfc" in complaints[0]
    faults: list[str] = []
    assert len(list(read_rows(tmp_path / "a.csv", on_fault=faults.append))) == 1
    assert "0xfc" in faults[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_utf16_without_a_mark_may_be_named_without_its_order_of_bytes(tmp_path, encoding):
    for name, content in (("a.tsv", "ham\tGrüße\n"), ("a.jsonl", '{"label": "ham", "text": "Grüße"}\n')):
        (tmp_path / name).write_bytes(content.encode(encoding))
        [row] = read_rows(tmp_path / name, RowSettings(encoding=encoding[:6]))
        assert row.value == {"label": "ham", "text": "Grüße"}


def test_a_nul_character_is_never_read_silently(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"label,text\nham,a\0b\n")
    with pytest.raises(DataError, match="has a NUL character near byte offset 16"):
        list(read_rows(tmp_path / "a.csv"))


def test_bad_rows_are_counted_where_somebody_counts(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[1]\n{"a": 2\n{"a": 3}\n')
    complaints: list[str] = []
    assert [row.value["a"] for row in read_rows(tmp_path / "a.jsonl", on_bad=complaints.append)] == [1, 3]
    assert len(complaints) == 2
    with pytest.raises(DataError, match="line 2 must be a JSON object, got list"):
        list(read_rows(tmp_path / "a.jsonl"))


def test_an_empty_path_is_not_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"}')
    for find in (find_row_files, find_sources):
        with pytest.raises(DataError, match="got an empty path"):
            find("")


def test_folders_hold_files_of_rows_by_their_suffix(tmp_path):
    for name in ("b.csv.gz", "a.json", "c.md"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in find_row_files(tmp_path)] == ["a.json", "b.csv.gz"]
    assert find_row_files(tmp_path / "c.md") == [tmp_path / "c.md"]


def test_pandas_columns_are_paired_by_index_whatever_its_order(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"text": {"7": "a", "3": "b"}, "label": {"3": "of b", "7": "of a"}}')
    assert [row.value for row in read_rows(path)] == [
        {"text": "a", "label": "of a"},
        {"text": "b", "label": "of b"},
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"columns": 5, "data": [[1, 2]]}, "must hold a list of names as columns, got 5"),
        ({"columns": [["text"]], "data": [["a"]]}, "must hold a list of names as columns"),
        ({"columns": ["a", "a"], "data": [[1, 2]]}, "must have differently named columns"),
        ({"columns": ["a", "b"], "data": [[1, 2], [1]]}, "entry 2 must be a list of 2 values, got \\[1\\]"),
        ({"columns": ["a", "b"], "data": [[1, 2, 3]]}, "entry 1 must be a list of 2 values"),
        ({"columns": ["a"], "data": [1]}, "entry 1 must be a list of 1 values, got 1"),
    ],
)
def test_a_split_table_that_does_not_fit_loses_no_value_silently(tmp_path, value, message):
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / "a.json"))


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array(["a"])
    table = pyarrow.Table.from_arrays([column, column, column], names=["text", "text", "label"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="differently named columns, got 'text' twice"):
        list(read_rows(tmp_path / "a.parquet"))
