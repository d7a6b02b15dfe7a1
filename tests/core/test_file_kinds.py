import gzip
import io
import pickle
import sqlite3
import zipfile
import zlib

import pytest

from scratchlm.core.errors import DataError
from scratchlm.core.file_kinds import foreign_kind, marked_encoding, not_text
from scratchlm.core.files import read_utf8


def zipped(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return held.getvalue()


def database(folder) -> bytes:
    connection = sqlite3.connect(folder / "a.db")
    connection.execute("create table a (b text)")
    connection.commit()
    connection.close()
    return (folder / "a.db").read_bytes()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + zlib.compress(b"pixels")
TEXT = "Some words of any text. " * 40
FOREIGN = [
    (gzip.compress(b"a"), "a gzip file", "unpack it first"),
    (zipped("notes.txt"), "a zip archive", "unpack it first"),
    (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Office document (such as .xlsx or .docx)", "save it as CSV"),
    (b"%PDF-1.7\n1 0 obj\n", "a PDF document", "extract its text first"),
    (PNG, "a PNG image", "convert it to text first"),
    (b"PAR1\x15\x04\x15\x10", "a Parquet file", "convert it to text first"),
    (b"FEA1\0\0\0\0", "an Arrow (Feather) file", "convert it to text first"),
    (b"\xff\xff\xff\xff\x70\0\0\0", "an Arrow stream", "convert it to text first"),
    (b"\0\x03\x9c\xff\x01\x02 and others" * 20, "binary data", "convert it to text"),
    (bytes(500), "only zero bytes", "restore it from another copy"),
    (b"GGUF\x03\0\0\0", "a GGUF model", "convert it to text first"),
    (pickle.dumps({"a": [1, 2]}), "a Python pickle", "convert it to text first"),
    (TEXT.encode("utf-16-le"), "text in UTF-16-LE without a byte-order mark", "--encoding utf-16-le"),
    (TEXT.encode("utf-16-be"), "text in UTF-16-BE without a byte-order mark", "--encoding utf-16-be"),
    (TEXT.encode("utf-32-le"), "text in UTF-32-LE without a byte-order mark", "--encoding utf-32-le"),
    (TEXT.encode("utf-16"), "text in UTF-16", "--encoding utf-16"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "advice"), FOREIGN, ids=[kind for _, kind, _ in FOREIGN])
def test_what_is_no_utf8_text_is_called_by_its_name(tmp_path, data, kind, advice):
    assert foreign_kind(data) == kind
    assert advice in not_text(kind)
    (tmp_path / "a.json").write_bytes(data)
    if b"\xff" in data or b"\x80" in data or b"\x89" in data or b"\x8b" in data:  # else it is UTF-8 by chance
        with pytest.raises(DataError) as caught:
            read_utf8(tmp_path / "a.json")
        assert kind in str(caught.value)
        assert "iconv" not in str(caught.value)
        assert "--encoding" not in str(caught.value)  # of no command whose files are always UTF-8


def test_a_database_is_called_so(tmp_path):
    assert foreign_kind(database(tmp_path)) == "an SQLite database"


@pytest.mark.parametrize(
    "text",
    ["", "a", "PAR1 is a word", "ORC and elf", "GGUF files, BZh, RIFF, ID3 and Obj", "Grüße, 漢字", "\ufeffmarked",
     "Привет мир " * 30, "漢字" * 2047 + "abc漢", "a NUL\0in a text", "tab\tand\x1b[0m colour", "PK or not PK"],
)  # fmt: skip
def test_text_is_never_taken_for_something_else(text):
    assert foreign_kind(text.encode("utf-8")) is None


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_announces_its_encoding(name):
    data = "häuser".encode(name)
    encoding = marked_encoding(data)
    assert encoding is not None
    assert data.decode(encoding).removeprefix("\ufeff") == "häuser"
    assert marked_encoding(b"plain") is None


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("caf\xe9 na\xefve\r\n", "latin-1"), ("“quoted” – café", "windows-1252"), ("Привет мир\t", "windows-1251"),
     ("こんにちは。\n", "shift_jis"), ("こんにちは。\n", "iso2022_jp"),
     ("你好世界\n", "gb18030"), ("你好世界\n", "big5")],
)  # fmt: skip
def test_text_in_another_encoding_is_not_taken_for_binary_data(text, encoding):
    assert foreign_kind((text * 50).encode(encoding)) is None
