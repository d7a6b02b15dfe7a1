"""Where text comes from: files, folders and globs of plain text and of rows with a text, gzipped or not.

Text is read in pieces, so that a file larger than memory is no special case. A plain-text file is one
document, unless a separator is named; a line of .jsonl or a row of .parquet is one document. Line ends are left
as they are.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scratchlm.core.errors import DataError
from scratchlm.core.file_kinds import PARQUET_MAGIC
from scratchlm.core.files import check_characters
from scratchlm.data.parquet import read_parquet
from scratchlm.data.row_files import RowSettings, find_key, parsed_rows, suffix_of
from scratchlm.data.text_files import decoded, head_of

logger = logging.getLogger(__name__)

Kind = Literal["text", "jsonl", "parquet", "table"]
KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
NAMED_KINDS: dict[str, Kind] = {  # of files that are named themselves; in a folder they may be anything
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "table",
    ".tsv": "table",
}
PIECE_CHARS = 1 << 20  # a piece is about this long and never longer than twice this

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
    once. In folders, hidden files and files of other kinds are left alone; a file named by itself is read whatever
    its name is.
    Raises: DataError for a path that is missing, or holds no text file.
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
    suffix = suffix_of(path)
    return (KINDS | NAMED_KINDS).get(suffix) if suffix else "text"


def read_documents(
    paths: str | Path | Sequence[str | Path],
    *,
    rows: RowSettings | None = None,
    document_separator: str = "",
    skip_bad_lines: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Document]:
    """Every document of the sources, one at a time; see `read_pieces` for settings and errors."""
    pieces = read_pieces(
        find_sources(paths),
        rows=rows,
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
    rows: RowSettings | None = None,
    document_separator: str = "",
    skip_bad_lines: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> Iterator[Piece]:
    """Every document of the files in pieces of bounded size, cut where GPT-2's ids do not change.

    rows: the column that holds the text, the encoding, and how tables are written.
    document_separator: what stands between the documents of one plain-text file, as `<|endoftext|>` in
    TinyStories; it is no part of them, nor are the line ends beside it. Without one a file is one document.
    skip_bad_lines leaves out lines and rows that hold no usable text; each one's complaint goes to on_skip,
    or else their number is logged. Lines of nothing but white space in a .jsonl are no documents.
    Raises: DataError for text in another encoding (file and byte offset), NUL characters, what is no text at all, an
    empty file, a damaged gzip or parquet file, and, unless skipped, a row that does not parse or has no text (file and
    line number).
    """
    rows = rows or RowSettings()
    text_field = rows.text_column
    for path in files:
        kind = source_kind(path) or "text"
        if kind == "parquet" or (kind == "text" and head_of(path).startswith(PARQUET_MAGIC)):
            records = read_parquet(path, columns=[text_field])
        elif kind == "text":
            yield from _text_file(path, document_separator, rows.encoding)
            continue
        else:
            records = parsed_rows(path, rows)
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
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and suffix_of(f) in KINDS]
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts)]
        if not files:
            raise DataError(
                f"{path} should hold text, found no file of a known kind in it; known are "
                f"{', '.join(KINDS)}, each also with .gz."
            )
        return files
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        files = [f for m in matches for f in (_expand(m) if m.is_dir() else [m] if source_kind(m) else [])]
        if files:
            return files
        raise DataError(f"{path} should match text files, found none; check the pattern and the folder.")
    raise DataError(f"{path} should be a file, folder or glob, found nothing there; check the path.")


def _text_file(path: Path, separator: str, encoding: str) -> Iterator[Piece]:
    if separator:
        n_documents = 0
        for text in separated_documents(decoded(path, encoding), separator):
            n_documents += 1
            yield from _cut([text], f"{path} document {n_documents}")
        if n_documents == 0:
            raise DataError(f"{path} should hold text, found nothing but {separator!r}; remove it.")
        return
    has_text = False
    for piece in _cut(decoded(path, encoding), str(path)):
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


def _usable_text(value: Any, origin: str, text_field: str) -> str:
    if isinstance(value, DataError):
        raise DataError(f"{value} Such lines are left out with --skip-bad-lines.") from value
    if not isinstance(value, dict):
        raise DataError(
            f"{origin} must be a JSON object with the field {text_field!r}, found {type(value).__name__}; "
            "write each document as one object on one line."
        )
    key = find_key(value, text_field)
    if key is None:
        raise DataError(
            f"{origin} must have the field {text_field!r}, found {', '.join(map(repr, value)) or 'no field'}; "
            "name the one that holds the text (--text-field)."
        )
    text = value[key]
    if not isinstance(text, str) or not text.strip():
        found = "no text" if isinstance(text, str) else type(text).__name__
        raise DataError(
            f"{origin} must have text in {text_field!r}, found {found}; fill it or remove the line."
        )
    return check_characters(text, where=origin)
