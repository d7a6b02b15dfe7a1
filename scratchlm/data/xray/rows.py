"""Rows of every kind of data, read so that a bad one is counted and the others still come.

Training's own readers stop at the first bad row, which is right for training. `refusal` asks them as well, so
that an X-ray also says whether training would take the file.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import check_characters
from scratchlm.data.ag_news import is_ag_news, news_item
from scratchlm.data.classification import read_labelled
from scratchlm.data.imdb import read_imdb
from scratchlm.data.instructions import Instruction, instruction_of, read_instructions
from scratchlm.data.preferences import Preference, preference_of, read_preferences
from scratchlm.data.row_notes import RowNotes
from scratchlm.data.sources import find_sources, read_pieces, separated_documents, source_kind
from scratchlm.data.xray.byte_faults import ByteFaults, decoded_leniently
from scratchlm.data.xray.detect import DataKind

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

    def complain(self, complaint: str) -> None:
        """Count a row that cannot be used."""
        self.n_unusable += 1
        if len(self.complaints) < N_COMPLAINTS:
            self.complaints.append(complaint)


def read_rows(
    path: str | Path,
    kind: DataKind,
    reading: Reading,
    *,
    text_field: str = "text",
    document_separator: str = "",
) -> Iterator[DataRow]:
    """Every usable row; the others are counted in `reading`.

    A row of text is a document of .jsonl or .parquet, or of a plain-text file whose document_separator is named;
    without one it is a paragraph: what stands between empty lines.
    Raises: DataError when a file cannot be read at all.
    """
    path = Path(path)
    if kind == "text":
        yield from _text_rows(path, reading, text_field, document_separator)
        return
    for where, value in _records(path, reading):
        row = _row(where, value, kind, reading)
        if row is not None:
            yield row


def refusal(path: str | Path, kind: DataKind) -> str | None:
    """What training's own reader says against the file; None when it takes it, or when there is no such reader."""
    try:
        if kind == "classification":
            read_labelled(path)
        elif kind == "instruction":
            read_instructions(path, notes=RowNotes())
        elif kind == "preference":
            read_preferences(path, notes=RowNotes())
    except DataError as complaint:
        return str(complaint)
    return None


def _text_rows(path: Path, reading: Reading, text_field: str, document_separator: str) -> Iterator[DataRow]:
    for file in find_sources(path):
        if source_kind(file) == "text":
            stretches = decoded_leniently(file, reading.faults)
            if not document_separator:
                yield from _paragraphs(file, stretches)
                continue
            for number, text in enumerate(separated_documents(stretches, document_separator), start=1):
                yield DataRow(where=f"{file} document {number}", fields={"text": text})
            continue
        if source_kind(file) == "jsonl":
            for _ in decoded_leniently(file, reading.faults):
                pass  # only its bytes are looked at here; read_pieces tells documents apart
        pieces = read_pieces([file], text_field=text_field, skip_bad_lines=True, on_skip=reading.complain)
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


def _records(path: Path, reading: Reading) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of a file of rows, as fields by the file's names."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".tar":
        reading.faults.n_bytes = path.stat().st_size
        for number, (text, label) in enumerate(read_imdb(path), start=1):
            yield f"{path} review {number}", {"text": text, "label": label}
        return
    stretches = decoded_leniently(path, reading.faults)
    match suffix:
        case ".json":
            yield from _json_records(path, "".join(stretches), reading)
        case ".jsonl":
            for number, line in enumerate(_lines(stretches), start=1):
                if line.strip():
                    yield from _json_records(path, line, reading, number=number)
        case ".csv":
            yield from _csv_records(path, stretches, reading)
        case _:
            yield from _tsv_records(path, stretches, reading)


def _json_records(
    path: Path, text: str, reading: Reading, *, number: int | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a JSON list, or of one line of JSONL, whose number it bears."""
    where = str(path) if number is None else f"{path} line {number}"
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as cause:
        reading.complain(f"{where} should be JSON, found: {cause}")
        return
    values = value if number is None and isinstance(value, list) else [value]
    for entry, item in enumerate(values, start=1):
        at = where if number is not None else f"{path} entry {entry}"
        if isinstance(item, dict):
            yield at, item
        else:
            reading.complain(f"{at} should be an object, found {type(item).__name__}")


def _csv_records(
    path: Path, stretches: Iterable[str], reading: Reading
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    stretches = iter(stretches)
    head = next(stretches, "")
    reader = csv.reader(_lines(itertools.chain([head], stretches)))
    names: list[str] | None = None
    is_news = is_ag_news(head)
    try:
        for cells in reader:
            where = f"{path} line {reader.line_num}"
            if is_news and cells:
                text, label = news_item(cells) or (None, None)
                yield (
                    where,
                    {"text": text, "label": label},
                )  # None is complained about, as in every kind of row
            elif names is None:
                names = cells
            elif cells and len(cells) != len(names):
                reading.complain(f"{where} should have {len(names)} cells, found {len(cells)}")
            elif cells:
                yield where, dict(zip(names, cells))
    except csv.Error as cause:
        reading.complain(f"{path} line {reader.line_num} should be well-formed CSV, found: {cause}")


def _tsv_records(
    path: Path, stretches: Iterable[str], reading: Reading
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = ("label", "text")
    for number, line in enumerate(_lines(stretches), start=1):
        cells = line.rstrip("\r\n").split("\t", maxsplit=1)
        if number == 1 and sorted(cell.strip().casefold() for cell in cells) == ["label", "text"]:
            names = tuple(cell.strip().casefold() for cell in cells)  # type: ignore[assignment]
        elif len(cells) == 2:
            yield f"{path} line {number}", dict(zip(names, cells))
        else:
            reading.complain(f"{path} line {number} should be label<TAB>text, found no tab")


def _row(where: str, value: Mapping[str, Any], kind: DataKind, reading: Reading) -> DataRow | None:
    """A record's fields by our names; None when it cannot be used, with a complaint or a note."""
    if kind in ("instruction", "preference"):
        return _entry_row(where, value, kind, reading)
    by_name = {str(name).strip().casefold(): content for name, content in value.items()}
    fields: dict[str, str] = {}
    for name in ("label", "text"):
        content = by_name.get(name)
        if name == "label" and isinstance(content, int) and not isinstance(content, bool):
            content = str(content)
        if not isinstance(content, str):
            found = type(content).__name__ if name in by_name else "no such field"
            reading.complain(f"{where} should have text under {name!r}, found {found}")
            return None
        if not content.strip():
            reading.complain(f"{where} should have text under {name!r}, found nothing in it")
            return None
        fields[name] = content.strip() if name == "label" else content
    row = DataRow(where=where, fields=fields)
    return row if _is_unicode(row, reading) else None


def _entry_row(where: str, value: Mapping[str, Any], kind: DataKind, reading: Reading) -> DataRow | None:
    """A row of instruction or preference data; all that was said before its answers counts as the request."""
    read = instruction_of if kind == "instruction" else preference_of
    try:
        entry = read(value, where=where, notes=reading.notes)
    except DataError as cause:
        reading.complain(str(cause))
        return None
    if entry is None:
        return None
    before = [*itertools.chain.from_iterable(entry.history), entry.instruction]
    answers = {
        name: getattr(entry, name) for name in ("output", "chosen", "rejected") if hasattr(entry, name)
    }
    system = {"system": entry.system} if entry.system else {}
    fields = {**system, "instruction": "\n".join(filter(None, before)), "input": entry.input, **answers}
    return DataRow(where=where, fields=fields, entry=entry)


def _is_unicode(row: DataRow, reading: Reading) -> bool:
    """Can a tokenizer read it? JSON can spell half a character, which training's readers refuse too."""
    try:
        for name, text in row.fields.items():
            check_characters(text, where=f"{row.where}, {name},")
    except DataError as cause:
        reading.complain(str(cause))
        return False
    return True
