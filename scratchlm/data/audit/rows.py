"""Rows of every kind of data, read so that a bad one is counted and the others still come.

The readers are those of training. It stops at the first bad row, which is right for training; `Reading.refusal` keeps
what it would say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scratchlm.core.errors import DataError
from scratchlm.data.audit.byte_faults import ByteFaults, count_bytes, decoded_leniently
from scratchlm.data.audit.detect import DataKind
from scratchlm.data.classification import labelled_text
from scratchlm.data.instructions import Instruction, instruction_of
from scratchlm.data.preferences import Preference, preference_of
from scratchlm.data.row_notes import RowNotes
from scratchlm.data.rows import RowSettings, SourceRow, find_row_files, read_rows
from scratchlm.data.sources import find_sources, read_pieces, separated_documents, source_kind

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
