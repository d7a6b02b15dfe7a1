"""Detect the kind of a data set, and read its rows for the audit: bad rows are counted, the others still read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
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
from scratchlm.data.shards import HEADER_FILE, is_nanogpt
from scratchlm.data.sources import find_sources, read_pieces, separated_documents, source_kind
from scratchlm.data.tables import LABEL_NAMES, TEXT_NAMES, folded, table_form
from scratchlm.data.text_files import head_of

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

DataKind = Literal["text", "classification", "instruction", "preference", "shards"]
KINDS: tuple[DataKind, ...] = get_args(DataKind)

N_LINES_TRIED = 200  # of a file without a telling suffix
MOST_LABELS = 50
LONGEST_LABEL_CHARS = 40


def detect_kind(path: str | Path, settings: RowSettings | None = None) -> DataKind:
    """Decide by the first rows, and for plain text by its first lines.

    A token folder is known by its header.json. Rows are known by their keys or columns; a file of any
    other name whose first lines are all `label<TAB>text`, with few labels, is taken for classification, as the
    SMS Spam Collection is. What is left is text: files, folders and globs.
    Raises: DataError for a path that is missing, or whose rows have none of the known keys.
    """
    path, settings = Path(path), settings or RowSettings()
    if folder_of_tokens(path) is not None:
        return "shards"
    if not path.is_file():
        return "text"  # a folder or a glob; whether it is there, and holds text, its reader says
    head = head_of(path)
    is_text = (foreign_kind(head) or "text").startswith("text")
    if suffix_of(path) not in SUFFIXES and is_text and not looks_json(head):
        start = next(decoded_leniently(path, ByteFaults(), settings.encoding), "")
        return "classification" if _is_labelled(start) else "text"
    try:
        first = next(read_rows(path, settings, on_bad=lambda _: None, on_fault=lambda _: None), None)
    except DataError:
        if not head.startswith(PARQUET_MAGIC):
            raise
        return "text"  # a damaged one; its reader says so
    if first is None and suffix_of(path) == ".tsv":
        return "classification"  # with no row that is one; its reader says so
    return kind_of_keys({} if first is None else first.value, where=str(path))


def folder_of_tokens(path: Path) -> Path | None:
    """The token folder that a path names: itself, or the folder of its `train.bin` or `header.json`."""
    folder = path.parent if path.name == HEADER_FILE or path.suffix == ".bin" else path
    return folder if (folder / HEADER_FILE).is_file() or is_nanogpt(folder) else None


def kind_of_keys(row: Mapping[str, Any], *, where: str) -> DataKind:
    """What a row with these keys is for, in any case of letters.

    Raises: DataError when they are none of the known ones.
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

    Raises: ConfigError for any other word.
    """
    for kind in KINDS:
        if kind == name:
            return kind
    raise ConfigError(
        f"kind must be auto or one of {', '.join(KINDS)}, got {name!r}; leave it out to detect it."
    )


def _is_labelled(head: str) -> bool:
    """A header names text and label, or all first lines are a short label, a tab and a text, with few labels."""
    form = table_form(head)
    if form.has_header:
        return kind_of_keys(dict.fromkeys((*form.names, "text")), where="the header") == "classification"
    whole = head.split("\n")[: -1 if len(head) > 1 and not head.endswith("\n") and "\n" in head else None]
    lines = list(islice((line for line in whole if line.strip()), N_LINES_TRIED))
    labels = {line.split("\t", maxsplit=1)[0] for line in lines}
    return (
        len(lines) >= 2
        and all("\t" in line for line in lines)
        and all(0 < len(label.strip()) <= LONGEST_LABEL_CHARS for label in labels)
        and len(labels) <= min(MOST_LABELS, max(2, len(lines) // 2))
    )


N_COMPLAINTS = 5  # kept as words; all are counted
LONGEST_PARAGRAPH_CHARS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One row of any kind: its fields by our names, and where it stands."""

    where: str
    fields: Mapping[str, str]
    entry: Instruction | Preference | None = None  # an instruction or a pair as training's own reader has it

    @property
    def text(self) -> str:
        """All that a model would read of it."""
        return "\n".join(text for name, text in self.fields.items() if name != "label" and text)

    @property
    def key(self) -> str:
        """What must not stand in training and in test alike: the question, where there is one."""
        asked = [self.fields.get(name, "") for name in ("instruction", "input")]
        return "\n".join(part for part in asked if part) or self.text


@dataclass(slots=True)
class Reading:
    """What reading has met so far, beside the rows."""

    faults: ByteFaults = field(default_factory=ByteFaults)
    n_unusable: int = 0
    complaints: list[str] = field(default_factory=list)
    notes: RowNotes = field(default_factory=RowNotes)
    refusal: str | None = None  # what training says against the file, which stops at the first fault

    def refuse(self, complaint: str) -> None:
        """Keep what training would say first."""
        self.refusal = self.refusal or complaint

    def complain(self, complaint: str) -> None:
        """Count a row that cannot be used."""
        self.refuse(complaint)
        self.n_unusable += 1
        if len(self.complaints) < N_COMPLAINTS:
            self.complaints.append(complaint)


def usable_rows(
    path: str | Path,
    kind: DataKind,
    reading: Reading,
    *,
    settings: RowSettings | None = None,
    document_separator: str = "",
) -> Iterator[DataRow]:
    """Every usable row; the others are counted in `reading`.

    A row of text is a document of .jsonl or .parquet, or of a plain-text file whose document_separator is named;
    without one it is a paragraph: what stands between empty lines.
    Raises: DataError when a file cannot be read at all.
    """
    settings = settings or RowSettings()
    if kind == "text":
        yield from _text_rows(Path(path), reading, settings, document_separator)
        return
    for file in find_row_files(path):
        count_bytes(file, reading.faults, settings.encoding)
        for row in read_rows(file, settings, on_bad=reading.complain, on_fault=reading.refuse):
            try:
                found = _labelled(row) if kind == "classification" else _entry(row, kind, reading.notes)
            except DataError as complaint:
                reading.complain(str(complaint))
            else:
                if found is not None:
                    yield found


def _labelled(row: SourceRow) -> DataRow:
    found = labelled_text(row)
    return DataRow(where=row.where, fields={"label": found.label, "text": found.text})


def _entry(row: SourceRow, kind: DataKind, notes: RowNotes) -> DataRow | None:
    """A row of instruction or preference data; all that was said before its answers counts as the request."""
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
            stretches = decoded_leniently(file, reading.faults, settings.encoding)
            if not document_separator:
                yield from _paragraphs(file, stretches)
                continue
            for number, text in enumerate(separated_documents(stretches, document_separator), start=1):
                yield DataRow(where=f"{file} document {number}", fields={"text": text})
            continue
        if source_kind(file) != "parquet":
            count_bytes(file, reading.faults, settings.encoding)
        pieces = read_pieces(
            [file],
            rows=settings,
            skip_bad_lines=True,
            on_skip=reading.complain,
        )
        parts: list[str] = []
        for piece in pieces:
            parts.append(piece.text)
            if piece.ends_document:
                yield DataRow(where=piece.origin, fields={"text": "".join(parts)})
                parts.clear()


def _paragraphs(path: Path, stretches: Iterable[str]) -> Iterator[DataRow]:
    """The runs of lines between empty lines; one longer than memory likes is cut at a line end."""
    lines: list[str] = []
    n_chars, first = 0, 1
    for number, line in enumerate(_lines(stretches), start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
            n_chars += len(line)
        if lines and (not line.strip() or n_chars >= LONGEST_PARAGRAPH_CHARS):
            yield DataRow(where=f"{path} line {first}", fields={"text": "".join(lines).rstrip("\r\n")})
            lines, n_chars = [], 0
    if lines:
        yield DataRow(where=f"{path} line {first}", fields={"text": "".join(lines).rstrip("\r\n")})


def _lines(stretches: Iterable[str]) -> Iterator[str]:
    """Lines with their ends; `\\n` alone ends one, and one without an end in sight is cut."""
    held = ""
    for stretch in stretches:
        *whole, held = (held + stretch).split("\n")
        for line in whole:
            yield line + "\n"
        while len(held) >= LONGEST_PARAGRAPH_CHARS:
            yield held[:LONGEST_PARAGRAPH_CHARS]
            held = held[LONGEST_PARAGRAPH_CHARS:]
    if held:
        yield held


def stream_figures(
    path: str | Path, tokenizer: Tokenizer | None, settings: RowSettings, *, document_separator: str = ""
) -> dict[str, Any]:
    """Documents, characters, bytes and tokens of one split; `refused` holds what pre-training says against it.

    Tokens are those of the texts alone; pre-training adds one end-of-text after each document.
    """
    n_documents = n_characters = n_bytes = n_tokens = 0
    try:
        for piece in read_pieces(
            find_sources(path),
            rows=settings,
            document_separator=document_separator,
            skip_bad_lines=True,
            on_skip=lambda _: None,
        ):
            n_documents += piece.ends_document
            n_characters += len(piece.text)
            n_bytes += len(piece.text.encode("utf-8"))
            n_tokens += len(tokenizer.encode(piece.text)) if tokenizer is not None else 0
    except DataError as complaint:
        return {"stream": None, "refused": str(complaint)}
    return {
        "stream": {
            "documents": n_documents,
            "characters": n_characters,
            "bytes": n_bytes,
            "tokens": n_tokens if tokenizer is not None else None,
            "bytes_per_token": n_bytes / n_tokens if n_tokens else None,
        },
        "refused": None,
    }
