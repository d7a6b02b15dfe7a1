"""Where text comes from: files, folders and globs of .txt, .md, .jsonl and .parquet, gzipped or not.

Text is read in pieces, so that a file larger than memory is no special case. A plain-text file is one
document, unless a separator is named; a line of .jsonl or a row of .parquet is one document. Line ends are left
as they are.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import json
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from scratchlm.core.errors import DataError, MissingDependencyError
from scratchlm.core.files import check_characters

logger = logging.getLogger(__name__)

Kind = Literal["text", "jsonl", "parquet"]
KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
PIECE_CHARS = 1 << 20  # a piece is about this long and never longer than twice this
_READ_BYTES = 1 << 20

# GPT-2's pre-tokenizer always ends a word before the last white space of a run, so text cut there has the
# same ids in two pieces as in one. A line end is preferred; any white space will do; without either the cut
# is anywhere.
_BEFORE_LINE = re.compile(r".+(?=\n\S)", re.DOTALL)
_BEFORE_WORD = re.compile(r".+(?=[ \t]\S)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text that stands for itself, and where it came from."""

    text: str
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a document; a document's pieces follow each other, and the last one says so."""

    text: str
    origin: str
    ends_document: bool


def find_sources(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that paths name: files, folders searched to the bottom, globs such as `books/*.txt`.

    The order is that of the arguments, sorted inside each folder or glob; a file reached twice is listed
    once. In folders, hidden files and files of other kinds are left alone; a file named by itself must be of
    a known kind.
    Raises: DataError for a path that is missing, of an unknown kind, or holds no text file.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    found: dict[Path, Path] = {}  # absolute path -> the path as it was named
    for path in paths:
        for file in _expand(Path(path)):
            found.setdefault(file.resolve(), file)
    if not found:
        raise DataError("data needs at least one file or folder, found no path at all; name one.")
    return list(found.values())


def source_kind(path: Path) -> Kind | None:
    """How a file is read, by its name without `.gz`: no suffix is plain text, None is an unknown one."""
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    return KINDS.get(suffix) if suffix else "text"


def read_documents(
    paths: str | Path | Sequence[str | Path],
    *,
    text_field: str = "text",
    document_separator: str = "",
    skip_bad_lines: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Document]:
    """Every document of the sources, one at a time; see `read_pieces` for settings and errors."""
    pieces = read_pieces(
        find_sources(paths),
        text_field=text_field,
        document_separator=document_separator,
        skip_bad_lines=skip_bad_lines,
        on_skip=on_skip,
    )
    texts: list[str] = []
    for piece in pieces:
        texts.append(piece.text)
        if piece.ends_document:
            yield Document(text="".join(texts), origin=piece.origin)
            texts.clear()


def read_pieces(
    files: Iterable[Path],
    *,
    text_field: str = "text",
    document_separator: str = "",
    skip_bad_lines: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Piece]:
    """Every document of the files in pieces of bounded size, cut where GPT-2's ids do not change.

    document_separator: what stands between the documents of one plain-text file, as `<|endoftext|>` in
    TinyStories; it is no part of them, nor are the line ends beside it. Without one a file is one document.
    skip_bad_lines leaves out lines and rows that hold no usable text; each one's complaint goes to on_skip,
    or else their number is logged. Lines of nothing but white space in a .jsonl are no documents.
    Raises: DataError for text that is not UTF-8 (file and byte offset), an empty file, a damaged gzip or
    parquet file, and, unless skipped, a line that does not parse or has no text (file and line number).
    """
    for path in files:
        kind = source_kind(path)
        if kind == "text":
            yield from _text_file(path, document_separator)
            continue
        records = _jsonl_records(path) if kind == "jsonl" else _parquet_records(path, text_field)
        n_documents, complaints = 0, 0
        for value, origin in records:
            try:
                text = _usable_text(value, origin, text_field)
            except DataError as complaint:
                if not skip_bad_lines:
                    raise
                complaints += 1
                if on_skip is not None:
                    on_skip(str(complaint))
                continue
            n_documents += 1
            yield from _cut([text], origin)
        if complaints and on_skip is None:
            logger.warning("%s: skipped %d lines that could not be used", path, complaints)
        if n_documents == 0:
            skipped = f", and {complaints} bad lines that were skipped" if complaints else ""
            raise DataError(f"{path} should hold text, found no document{skipped}; check the file.")


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and source_kind(f) and f.suffix]
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts)]
        if not files:
            raise DataError(
                f"{path} should hold text, found no file of a known kind in it; known are "
                f"{', '.join(KINDS)}, each also with .gz."
            )
        return files
    if path.exists():
        if source_kind(path) is None:
            raise DataError(
                f"{path} should be one of {', '.join(KINDS)} (also with .gz), got {path.suffix!r}; convert "
                "or rename it."
            )
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        files = [f for m in matches for f in (_expand(m) if m.is_dir() else [m] if source_kind(m) else [])]
        if files:
            return files
        raise DataError(f"{path} should match text files, found none; check the pattern and the folder.")
    raise DataError(f"{path} should be a file, folder or glob, found nothing there; check the path.")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unzipped when its name ends in .gz."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(
            f"{path} should be a whole gzip file, got: {cause}; copy or download it again."
        ) from cause
    except OSError as cause:
        raise DataError(
            f"{path} should be a readable file, got: {cause.strerror or cause}; check it."
        ) from cause


def _text_file(path: Path, separator: str) -> Iterator[Piece]:
    if separator:
        n_documents = 0
        for text in separated_documents(_decoded(path), separator):
            n_documents += 1
            yield from _cut([text], f"{path} document {n_documents}")
        if n_documents == 0:
            raise DataError(f"{path} should hold text, found nothing but {separator!r}; remove it.")
        return
    has_text = False
    for piece in _cut(_decoded(path), str(path)):
        has_text = has_text or piece.text.strip() != ""
        if piece.ends_document and not has_text:
            raise DataError(f"{path} should hold text, found an empty file or only white space; remove it.")
        yield piece


def separated_documents(stretches: Iterable[str], separator: str) -> Iterator[str]:
    """The texts between separators, without line ends around them; empty ones are no documents."""
    held: list[str] = []  # what belongs to a document whose end has not come yet
    for stretch in stretches:
        tail = held.pop() if held else ""  # may end with the beginning of a separator
        *whole, rest = (tail + stretch).split(separator)
        for text in whole:
            document = "".join([*held, text])
            held = []
            if document.strip():
                yield document.strip("\r\n")
        n_safe = max(0, len(rest) - len(separator) + 1)
        held += [rest[:n_safe], rest[n_safe:]]
    document = "".join(held)
    if document.strip():
        yield document.strip("\r\n")


def _decoded(path: Path) -> Iterator[str]:
    """A UTF-8 file as text, a stretch at a time, a byte-order mark at its start dropped."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_read, is_start = 0, True
    with _opened(path) as file:
        while True:
            data = file.read(_READ_BYTES)
            n_pending = len(decoder.getstate()[0])  # the first bytes of a character that the last read cut
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as cause:
                raise _not_utf8(str(path), cause, n_read - n_pending) from cause
            if text:
                yield text.removeprefix("\ufeff") if is_start else text
                is_start = False
            if not data:
                return
            n_read += len(data)


def _cut(stretches: Iterable[str], origin: str) -> Iterator[Piece]:
    """One document's text in pieces; always at least one."""
    kept = ""
    for stretch in stretches:
        kept += stretch
        start = 0
        while len(kept) - start > 2 * PIECE_CHARS:
            stop = _place_to_cut(kept, start, start + 2 * PIECE_CHARS)
            yield Piece(text=kept[start:stop], origin=origin, ends_document=False)
            start = stop
        kept = kept[start:]
    yield Piece(text=kept, origin=origin, ends_document=True)


def _place_to_cut(text: str, start: int, stop: int) -> int:
    found = _BEFORE_LINE.match(text, start, stop) or _BEFORE_WORD.match(text, start, stop)
    return found.end() if found else stop


def _jsonl_records(path: Path) -> Iterator[tuple[Any, str]]:
    """Each line's parsed value, or the DataError that says why there is none, and its origin."""
    n_read = 0
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            origin = f"{path} line {number}"
            if line.strip():
                yield _parse_line(line, origin, n_read), origin
            n_read += len(line)


def _parse_line(line: bytes, origin: str, offset: int) -> Any:
    try:
        return json.loads(line.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as cause:
        return _not_utf8(origin, cause, offset)
    except json.JSONDecodeError as cause:
        return DataError(
            f"{origin} must be one JSON object, found {cause.msg} at column {cause.colno}; repair it, or "
            "leave such lines out with --skip-bad-lines."
        )
    except RecursionError:
        return DataError(f"{origin} must be JSON of ordinary depth, found thousands of levels; repair it.")


def _parquet_records(path: Path, text_field: str) -> Iterator[tuple[Any, str]]:
    """Each row as a dictionary with the text field, and its origin."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as cause:
        raise MissingDependencyError(
            f"{path} is a parquet file and needs pyarrow, which is not installed: pip install "
            "'scratchlm[hub]'"
        ) from cause
    try:
        with _opened(path) as file, contextlib.ExitStack() as stack:
            if path.suffix == ".gz":  # parquet is read from its end, so it must be unzipped first
                unzipped = stack.enter_context(tempfile.TemporaryFile())
                while data := file.read(_READ_BYTES):
                    unzipped.write(data)
                unzipped.seek(0)
                file = unzipped
            table = pyarrow.parquet.ParquetFile(file)
            columns = [text_field] if text_field in table.schema_arrow.names else []
            if not columns:
                raise _no_text_field(str(path), text_field, table.schema_arrow.names)
            number = 0
            for rows in table.iter_batches(batch_size=1024, columns=columns):
                for row in rows.to_pylist():
                    number += 1
                    yield row, f"{path} row {number}"
    except pyarrow.ArrowException as cause:
        raise DataError(f"{path} should be a whole parquet file, got: {cause}; copy it again.") from cause


def _usable_text(value: Any, origin: str, text_field: str) -> str:
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, dict):
        raise DataError(
            f"{origin} must be a JSON object with the field {text_field!r}, found {type(value).__name__}; "
            "write each document as one object on one line."
        )
    if text_field not in value:
        raise _no_text_field(origin, text_field, list(value))
    text = value[text_field]
    if not isinstance(text, str) or not text.strip():
        found = "no text" if isinstance(text, str) else type(text).__name__
        raise DataError(
            f"{origin} must have text in {text_field!r}, found {found}; fill it or remove the line."
        )
    return check_characters(text, where=origin)


def _no_text_field(origin: str, text_field: str, fields: list[str]) -> DataError:
    return DataError(
        f"{origin} must have the field {text_field!r}, found {', '.join(map(repr, fields)) or 'no field'}; "
        "name the one that holds the text (text_field)."
    )


def _not_utf8(origin: str, cause: UnicodeDecodeError, offset: int) -> DataError:
    return DataError(
        f"{origin} must be UTF-8 text, found byte 0x{cause.object[cause.start]:02x} at byte offset "
        f"{offset + cause.start} ({cause.reason}); convert it first, e.g. `iconv -f WINDOWS-1252 -t UTF-8`."
    )
