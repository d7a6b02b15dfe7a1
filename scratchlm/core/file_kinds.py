"""Recognise the format of a file from its first bytes: text in some encoding, or a binary format."""

import codecs

HEAD_BYTES = 4096  # bytes at the start of a file that every function here needs
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
BYTE_ORDER_MARKS = (  # longer marks first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = bytes({*range(32)} - {*b"\t\n\f\r\x1a\x1b"})
BINARY = "binary data"  # of an unknown format
_OFFICE = (b"[Content_Types].xml", b"docProps/", b"xl/", b"word/")
_MAGIC = (  # first bytes, the format, and whether text never begins with them
    (GZIP_MAGIC, "a gzip file", True),
    (b"%PDF-", "a PDF document", True),
    (b"\x89PNG\r\n", "a PNG image", True),
    (b"\xff\xd8\xff", "a JPEG image", True),
    (b"SQLite format 3\x00", "an SQLite database", True),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (such as .xls or .doc)", True),
    (b"\xfd7zXZ\x00", "an xz file", True),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", True),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", True),
    (b"\x89HDF\r\n", "an HDF5 file", True),
    (b"\x93NUMPY", "a NumPy array", True),
    (b"\x7fELF", "a program", True),
    (b"{\\rtf", "an RTF document", True),
    (PARQUET_MAGIC, "a Parquet file", False),
    (b"ARROW1", "an Arrow (Feather) file", False),
    (b"FEA1", "an Arrow (Feather) file", False),
    (b"\xff\xff\xff\xff", "an Arrow stream", True),
    (b"GGUF", "a GGUF model", False),
    (b"BZh", "a bzip2 file", False),
    (b"GIF8", "a GIF image", False),
    (b"Obj\x01", "an Avro file", False),
    (b"ORC", "an ORC file", False),
    (b"RIFF", "a RIFF file (sound, video or image)", False),
    (b"ID3", "an MP3 file", False),
    (b"OggS", "an Ogg file", False),
    (b"\x80", "a Python pickle", False),
)


def marked_encoding(head: bytes) -> str | None:
    """Python's name of the encoding that a byte-order mark shows; None without a mark.

    Example:
        >>> marked_encoding(b"\\xff\\xfeh\\x00"), marked_encoding(b"h")
        ('utf-16-le', None)
    """
    return next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), None)


def foreign_kind(head: bytes) -> str | None:
    """Name the format of a file that is clearly not UTF-8, e.g. "a PDF document"; None if it may be text.

    Example:
        >>> foreign_kind(b"PK\\x03\\x04..."), foreign_kind(b"Dear reader")
        ('a zip archive', None)
    """
    head = head[:HEAD_BYTES]
    encoding = marked_encoding(head)
    if encoding is not None:
        return None if encoding == "utf-8" else f"text in {encoding[:6].upper()}"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        is_office = any(mark in head for mark in _OFFICE)
        return "an Office document (such as .xlsx or .docx)" if is_office else "a zip archive"
    if head[257:262] == b"ustar":
        return "a tar archive"
    is_binary = len(head.translate(None, _CONTROL)) < len(head)
    for magic, kind, is_sure in _MAGIC:
        if head.startswith(magic) and (is_sure or is_binary):
            return kind
    if head and not head.strip(b"\0"):
        return "only zero bytes"
    wide = wide_encoding(head)
    if wide is not None:
        return f"text in {wide.upper()} without a byte-order mark"
    return BINARY if is_binary and _is_no_text(head) else None


def _is_no_text(head: bytes) -> bool:
    """Whether it is not UTF-8 and more than one byte in fifty is a control character, as in no other encoding."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return len(head) - len(head.translate(None, _CONTROL)) > len(head) / 50
    return False


def wide_encoding(head: bytes) -> str | None:
    """Detect UTF-16 or UTF-32 without a mark: in most text, zero bytes are always at the same positions."""
    n_zeros = [head[start : len(head) // 4 * 4 : 4].count(0) for start in range(4)]
    n_characters = len(head) // 4
    if (
        n_characters
        and min(n_zeros[1:3]) > 0.9 * n_characters
        and max(n_zeros[0], n_zeros[3]) > 0.9 * n_characters
    ):
        return "utf-32-le" if n_zeros[3] > n_zeros[0] else "utf-32-be"
    even, odd = n_zeros[0] + n_zeros[2], n_zeros[1] + n_zeros[3]
    if max(even, odd) < max(4, 0.1 * len(head) / 2) or min(even, odd) > 0.1 * max(even, odd):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def not_text(kind: str) -> str:
    """Advice for a file of this format, used as the end of an error message."""
    if kind == BINARY:
        return "convert it to text, or name its encoding with --encoding if it is text, e.g. utf-16-le"
    if "zero bytes" in kind:
        return "restore it from another copy"
    if "Office" in kind:
        return "save it as CSV"
    if kind.startswith("text in"):
        encoding = kind.split()[2].lower()
        return f"name its encoding with --encoding {encoding}, or save it as UTF-8"
    if "PDF" in kind or "RTF" in kind:
        return "extract its text first"
    if any(word in kind for word in ("archive", "gzip", "xz", "zstandard", "bzip2")):
        return "unpack it first"
    return "convert it to text first"
