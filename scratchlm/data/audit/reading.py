"""Detect the kind of a data set, and read its rows for the audit; bad rows are skipped and counted.

The readers are those of training, which stops at the first bad row; `Reading.refusal` keeps that error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.file_kinds import PARQUET_MAGIC, foreign_kind
from scratchlm.data.audit.faults import ByteFaults, count_bytes, decoded_leniently
from scratchlm.data.classification_rows import labelled_text
from scratchlm.data.instruction_rows import Instruction, instruction_of
from scratchlm.data.preference_rows import Preference, preference_of
from scratchlm.data.row_fields import RowNotes, is_instruction
from scratchlm.data.row_files import (
    SUFFIXES,
    RowSettings,
    SourceRow,
    find_row_files,
    looks_json,
    read_rows,
    suffix_of,
)
from scratchlm.data.shards import token_folder
from scratchlm.data.sources import find_sources, read_documents, read_pieces, separated_documents, source_kind
from scratchlm.data.tables import LABEL_NAMES, TEXT_NAMES, folded, table_form, usual_lines
from scratchlm.data.text_files import head_of, lines_of

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

DataKind = Literal["text", "classification", "instruction", "preference", "shards"]
KINDS: tuple[DataKind, ...] = get_args(DataKind)

N_LINES_TRIED = 200  # lines read of a file whose suffix does not show its kind
MAX_LABELS = 50
MAX_LABEL_CHARS = 40
N_EXAMPLE_ERRORS = 5  # messages that are kept; all are counted
MAX_PARAGRAPH_CHARS = 1 << 20


def detect_kind(path: str | Path, settings: RowSettings | None = None) -> DataKind:
    """Detect the kind of data from the first rows, or from the first lines of plain text.

    Rows are recognised by their keys or columns. A file with any other name whose first lines are all `label<TAB>text`,
    with few labels, is classification data, such as the SMS Spam Collection. Other files, folders and globs are text.
    Raises: DataError for a path that is missing, or whose rows have none of the known keys.
    """
    path, settings = Path(path), settings or RowSettings()
    if token_folder(path) is not None:
        return "shards"
    if not path.is_file():
        return "text"  # a folder or glob; its reader reports a missing path
    head = head_of(path)
    is_text = (foreign_kind(head) or "text").startswith("text")
    if suffix_of(path) not in SUFFIXES and is_text and not looks_json(head):
        start = next(decoded_leniently(path, ByteFaults(), settings.encoding), "")
        return "classification" if _is_labelled(path, start) else "text"
    try:
        first = next(read_rows(path, settings, on_bad=lambda _: None, on_fault=lambda _: None), None)
    except DataError:
        if not head.startswith(PARQUET_MAGIC):
            raise
        return "text"  # a damaged file; its reader reports that
    if first is None and suffix_of(path) == ".tsv":
        return "classification"  # no usable row; its reader reports that
    return kind_of_keys({} if first is None else first.value, where=str(path))


def kind_of_keys(row: Mapping[str, Any], *, where: str) -> DataKind:
    """The kind of data that has these keys, in any letter case.

    Raises: DataError for unknown keys.
    Example:
        >>> kind_of_keys({"prompt": "", "chosen": "", "rejected": ""}, where="a.jsonl")
        'preference'
    """
    keys = {folded(str(key)) for key in row}
    if {"chosen", "rejected"} <= keys:
        return "preference"
    if is_instruction(row):
        return "instruction"
    if keys & set(TEXT_NAMES) and keys & set(LABEL_NAMES):
        return "classification"
    if "text" in keys:
        return "text"
    raise DataError(
        f"{where} must hold rows with text, with text and label, with instruction and output, with messages, or with "
        f"chosen and rejected, got the fields {', '.join(map(repr, row)) or '(none)'}; name the kind with --kind and "
        "the fields with --columns."
    )


def checked_kind(name: str) -> DataKind:
    """A kind by its name.

    Raises: ConfigError for an unknown name.
    """
    for kind in KINDS:
        if kind == name:
            return kind
    raise ConfigError(
        f"kind must be auto or one of {', '.join(KINDS)}, got {name!r}; leave it out to detect it."
    )


def _is_labelled(path: Path, head: str) -> bool:
    """Whether a header names text and label, or all first lines are a short label, a tab and a text."""
    head = usual_lines(head, path=str(path))
    form = table_form(head)
    if form.has_header:
        return kind_of_keys(dict.fromkeys((*form.names, "text")), where="the header") == "classification"
    whole = head.split("\n")[: -1 if len(head) > 1 and not head.endswith("\n") and "\n" in head else None]
    lines = list(itertools.islice((line for line in whole if line.strip()), N_LINES_TRIED))
    labels = {line.split("\t", maxsplit=1)[0] for line in lines}
    return (
        len(lines) >= 2
        and all("\t" in line for line in lines)
        and all(0 < len(label.strip()) <= MAX_LABEL_CHARS for label in labels)
        and len(labels) <= min(MAX_LABELS, max(2, len(lines) // 2))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row of any kind: its fields under our names, and its place in the file."""

    where: str
    fields: Mapping[str, str]
    entry: Instruction | Preference | None = None  # as training reads it

    @property
    def text(self) -> str:
        """All text of the row that a model reads."""
        return "\n".join(text for name, text in self.fields.items() if name != "label" and text)

    @property
    def key(self) -> str:
        """The text that must not be in both training and test data: the question, where there is one."""
        asked = [self.fields.get(name, "") for name in ("instruction", "input")]
        return "\n".join(part for part in asked if part) or self.text


@dataclass(slots=True)
class Reading:
    """Counts and messages collected while reading rows."""

    faults: ByteFaults = field(default_factory=ByteFaults)
    n_unusable: int = 0
    complaints: list[str] = field(default_factory=list)
    notes: RowNotes = field(default_factory=RowNotes)
    refusal: str | None = None  # the error with which training would stop

    def add_fault(self, message: str) -> None:
        """Keep the first message: the one with which training would stop."""
        self.refusal = self.refusal or message

    def add_unusable(self, message: str) -> None:
        """Count a row that cannot be used."""
        self.add_fault(message)
        self.n_unusable += 1
        if len(self.complaints) < N_EXAMPLE_ERRORS:
            self.complaints.append(message)


def usable_rows(
    path: str | Path,
    kind: DataKind,
    reading: Reading,
    *,
    settings: RowSettings | None = None,
    document_separator: str = "",
) -> Iterator[DataRow]:
    """Yield the usable rows; the others are counted in `reading`.

    A row of text is a document of .jsonl or .parquet, or of a plain-text file with a document_separator; without one
    it is a paragraph, the text between empty lines.
    Raises: DataError when a file cannot be read at all.
    """
    settings = settings or RowSettings()
    if kind == "text":
        yield from _text_rows(Path(path), reading, settings, document_separator)
        return
    for file in find_row_files(path):
        count_bytes(file, reading.faults, settings.encoding)
        for row in read_rows(file, settings, on_bad=reading.add_unusable, on_fault=reading.add_fault):
            try:
                found = _usable_row(row, kind, reading.notes)
            except DataError as error:
                reading.add_unusable(str(error))
            else:
                if found is not None:
                    yield found


def _usable_row(row: SourceRow, kind: DataKind, notes: RowNotes) -> DataRow | None:
    """The row as training reads it; all turns before the answers count as the request."""
    if kind == "classification":
        found = labelled_text(row)
        return DataRow(where=row.where, fields={"label": found.label, "text": found.text})
    read = instruction_of if kind == "instruction" else preference_of
    entry = read(row.value, where=row.where, notes=notes)
    if entry is None:
        return None
    before = [*itertools.chain.from_iterable(entry.history), entry.instruction]
    answers = {
        name: getattr(entry, name) for name in ("output", "chosen", "rejected") if hasattr(entry, name)
    }
    system = {"system": entry.system} if entry.system else {}
    fields = {**system, "instruction": "\n".join(filter(None, before)), "input": entry.input, **answers}
    return DataRow(where=row.where, fields=fields, entry=entry)


def _text_rows(
    path: Path, reading: Reading, settings: RowSettings, document_separator: str
) -> Iterator[DataRow]:
    for file in find_sources(path):
        if (source_kind(file) or "text") == "text":
            pieces = decoded_leniently(file, reading.faults, settings.encoding)
            if not document_separator:
                yield from _paragraphs(file, pieces)
                continue
            for number, text in enumerate(separated_documents(pieces, document_separator), start=1):
                yield DataRow(where=f"{file} document {number}", fields={"text": text})
            continue
        if source_kind(file) != "parquet":
            count_bytes(file, reading.faults, settings.encoding)
        for document in read_documents(
            file, rows=settings, skip_bad_lines=True, on_skip=reading.add_unusable
        ):
            yield DataRow(where=document.origin, fields={"text": document.text})


def _paragraphs(path: Path, pieces: Iterable[str]) -> Iterator[DataRow]:
    """Yield paragraphs, the lines between empty lines; a very long one is cut at a line end."""
    lines: list[str] = []
    n_chars, first = 0, 1
    for number, line in enumerate(lines_of(pieces, max_chars=MAX_PARAGRAPH_CHARS), start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
            n_chars += len(line)
        if lines and (not line.strip() or n_chars >= MAX_PARAGRAPH_CHARS):
            yield DataRow(where=f"{path} line {first}", fields={"text": "".join(lines).rstrip("\r\n")})
            lines, n_chars = [], 0
    if lines:
        yield DataRow(where=f"{path} line {first}", fields={"text": "".join(lines).rstrip("\r\n")})


def stream_figures(
    path: str | Path, tokenizer: Tokenizer | None, settings: RowSettings, *, document_separator: str = ""
) -> dict[str, Any]:
    """Count documents, characters, bytes and tokens as pre-training reads them; `refused` holds its error.

    Tokens are those of the texts only; pre-training adds one end-of-text after each document.
    """
    stream: dict[str, Any] = {"documents": 0, "characters": 0, "bytes": 0, "tokens": 0}
    try:
        for piece in read_pieces(
            find_sources(path),
            rows=settings,
            document_separator=document_separator,
            skip_bad_lines=True,
            on_skip=lambda _: None,
        ):
            stream["documents"] += piece.ends_document
            stream["characters"] += len(piece.text)
            stream["bytes"] += len(piece.text.encode("utf-8"))
            stream["tokens"] += len(tokenizer.encode(piece.text)) if tokenizer is not None else 0
    except DataError as error:
        return {"stream": None, "refused": str(error)}
    stream["bytes_per_token"] = stream["bytes"] / stream["tokens"] if stream["tokens"] else None
    if tokenizer is None:
        stream["tokens"] = None
    return {"stream": stream, "refused": None}
