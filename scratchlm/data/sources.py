"""Find and read text to train on: files, folders and globs of plain text or of rows with a text, also gzipped.

Text is read in pieces, so a file may be larger than memory. A plain-text file is one document unless a
separator is given; a line of .jsonl, or a row of a table or .parquet file, is one document. Line ends are
kept.
"""

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
from scratchlm.data.text_files import decoded, head_of, path_of

logger = logging.getLogger(__name__)

Kind = Literal["text", "jsonl", "parquet", "table"]
KINDS: dict[str, Kind] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}
NAMED_KINDS: dict[str, Kind] = {  # read only when named explicitly: in a folder they may contain anything
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "table",
    ".tsv": "table",
}
PIECE_CHARS = 1 << 20  # usual length of a piece; the maximum is twice this

# GPT-2's pre-tokenizer always ends a word before the last white space of a run, so a cut there does not
# change the ids. The cut is at a line end if possible, else at other white space, else anywhere.
_BEFORE_LINE = re.compile(r".+(?=\n\S)", re.DOTALL)
_BEFORE_WORD = re.compile(r".+(?=[ \t]\S)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text, and the file and place it was read from."""

    text: str
    origin: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a document; a document's pieces follow each other."""

    text: str
    origin: str
    ends_document: bool


def find_sources(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Find the files that paths name: files, folders with their subfolders, globs such as `books/*.txt`.

    The order is that of the arguments, sorted inside each folder or glob; a file found twice is listed once. In
    folders, hidden files and other kinds of files are ignored; a file given explicitly is read whatever its
    name.
    Raises: DataError for a path that is missing or has no text file.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    found: dict[Path, Path] = {}  # absolute path -> path as given
    for path in paths:
        for file in _expand(path_of(path)):
            found.setdefault(file.resolve(), file)
    if not found:
        raise DataError("data needs at least one file or folder, got none; name one.")
    return list(found.values())


def source_kind(path: Path) -> Kind | None:
    """The format of a file, by its suffix before `.gz`; no suffix means plain text, None an unknown one."""
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
    """Yield the documents of the sources; see `read_pieces` for settings and errors."""
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
    """Yield the documents of the files in pieces of bounded size, cut where GPT-2's ids do not change.

    rows: the text column, the encoding, and how tables are written.
    document_separator: the text between the documents of a plain-text file, such as `<|endoftext|>` in TinyStories;
        it and the line ends around it are dropped. Without one a file is one document.
    skip_bad_lines: leave out lines and rows without usable text; on_skip is called with the message for each,
        without it their number is logged. Blank lines of a .jsonl file are ignored.
    Raises: DataError for text in another encoding (file and byte offset), NUL characters, a file that is not text, an
        empty file, a damaged gzip or parquet file, and, unless skipped, a row that does not parse or has no text
        (file and line number).
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
            skipped = f" besides {complaints} skipped bad lines" if complaints else ""
            raise DataError(f"{path} has no document{skipped}; check the file.")


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and suffix_of(f) in KINDS]
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts)]
        if not files:
            raise DataError(
                f"{path} has no text file in it; files that end in {', '.join(KINDS)} are read from folders, each also "
                "with .gz."
            )
        return files
    if path.exists():
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        files = [f for m in matches for f in (_expand(m) if m.is_dir() else [m] if source_kind(m) else [])]
        if files:
            return files
        raise DataError(f"{path} matches no text file; check the pattern and the folder.")
    raise DataError(f"{path} does not exist; check the path.")


def _text_file(path: Path, separator: str, encoding: str) -> Iterator[Piece]:
    if separator:
        n_documents = 0
        for text in separated_documents(decoded(path, encoding), separator):
            n_documents += 1
            yield from _cut([text], f"{path} document {n_documents}")
        if n_documents == 0:
            raise DataError(f"{path} has no text besides {separator!r}; remove it.")
        return
    has_text = False
    for piece in _cut(decoded(path, encoding), str(path)):
        has_text = has_text or piece.text.strip() != ""
        if piece.ends_document and not has_text:
            raise DataError(f"{path} is empty or has only white space; remove it.")
        yield piece


def separated_documents(stretches: Iterable[str], separator: str) -> Iterator[str]:
    """Yield the texts between separators, without line ends around them; empty ones are dropped."""
    held: list[str] = []  # text of a document whose end has not been read yet
    for stretch in stretches:
        tail = held.pop() if held else ""  # the text may end with the first characters of a separator
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
    """Cut one document's text into pieces, at least one."""
    kept = ""
    for stretch in stretches:
        kept += stretch
        start = 0
        while len(kept) - start > 2 * PIECE_CHARS:
            stop = start + 2 * PIECE_CHARS
            if found := _BEFORE_LINE.match(kept, start, stop) or _BEFORE_WORD.match(kept, start, stop):
                stop = found.end()
            yield Piece(text=kept[start:stop], origin=origin, ends_document=False)
            start = stop
        kept = kept[start:]
    yield Piece(text=kept, origin=origin, ends_document=True)


def _usable_text(value: Any, origin: str, text_field: str) -> str:
    if isinstance(value, DataError):
        raise DataError(f"{value} --skip-bad-lines leaves such lines out.") from value
    if not isinstance(value, dict):
        raise DataError(
            f"{origin} must be a JSON object with the field {text_field!r}, got {type(value).__name__}; "
            "write each document as one object on one line."
        )
    key = find_key(value, text_field)
    if key is None:
        raise DataError(
            f"{origin} has no field {text_field!r} (its fields: {', '.join(map(repr, value)) or 'none'}); "
            "name the one that holds the text (--text-field)."
        )
    text = value[key]
    if not isinstance(text, str) or not text.strip():
        found = "no text" if isinstance(text, str) else type(text).__name__
        raise DataError(f"{origin} has {found} in {text_field!r}; fill it or remove the line.")
    return check_characters(text, where=origin)
