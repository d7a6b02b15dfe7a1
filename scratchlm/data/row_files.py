"""The one reader of rows: tables, JSON, JSON lines and Parquet, zipped or not, as dictionaries.

Content decides how a file is read, not its name. What a row means, classifiers, assistants and preference tuning each
say for themselves.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.file_kinds import PARQUET_MAGIC, foreign_kind
from scratchlm.core.files import parse_json
from scratchlm.data.imdb import read_imdb
from scratchlm.data.parquet import read_parquet
from scratchlm.data.row_fields import NAMES
from scratchlm.data.tables import folded, table_rows
from scratchlm.data.text_files import (
    checked_encoding,
    decoded,
    encoding_of,
    head_of,
    lines_of,
    opened,
    wrong_encoding,
)

OUR_COLUMNS = ("text", "label", *NAMES, "prompt")
_FIELDS = {name for names in NAMES.values() for name in names} - {
    "data"
}  # of a row; a list there is no table
LABELLED, ANSWERED = OUR_COLUMNS[:2], OUR_COLUMNS[2:]  # columns of classifiers, and of assistants
SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".ndjson", ".parquet")  # folders and globs are searched for
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
MOST_WHOLE_CHARS = 1 << 31  # of a table or JSON document, which are read whole; JSON lines have no limit
Parsed = tuple[
    Any, str
]  # a row's value, or the DataError that says why there is none, and the words for its place


S = TypeVar("S", bound="RowSettings")


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """How files of rows are read; what is left out is recognised."""

    text_field: str = "text"  # column or key that holds the text
    label_field: str = "label"  # column or key that holds the label
    columns: tuple[str, ...] = ()  # OURS=THEIRS, e.g. instruction=question output=answer
    encoding: str = ""  # of text that is not UTF-8 and has no byte-order mark, e.g. windows-1252
    delimiter: str = ""  # between the cells of a table, as one character or the word tab

    @property
    def renamed(self) -> dict[str, str]:
        """Our names of columns -> the file's, where they differ.

        Raises: ConfigError for a column named twice, or one of ours that no reader knows.
        """
        columns = parse_columns(self.columns)
        for ours, theirs in (("text", self.text_field), ("label", self.label_field)):
            if theirs != ours and columns.setdefault(ours, theirs) != theirs:
                raise ConfigError(
                    f"the column for {ours} must be named once, got {columns[ours]!r} and {theirs!r}; drop one."
                )
        return columns

    def only(self: S, *ours: str) -> S:
        """The settings without the columns that a reader of these has no use for: a run may have several readers."""
        return dataclasses.replace(
            self,
            text_field=self.text_field if "text" in ours else "text",
            label_field=self.label_field if "label" in ours else "label",
            columns=tuple(pair for pair in self.columns if pair.partition("=")[0] in ours),
        )

    @property
    def text_column(self) -> str:
        """The file's name of the column that holds the text."""
        return self.renamed.get("text", "text")


class SourceRow(NamedTuple):
    """One row of a file: its fields, and the words that name its place."""

    value: dict[str, Any]
    where: str


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`ours=theirs` as a table; a name alone means that both call the column so.

    Raises: ConfigError for a name of ours that no reader knows, or one given twice.
    Example:
        >>> parse_columns(("text=sentence", "label"))
        {'text': 'sentence', 'label': 'label'}
    """
    columns: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if ours not in OUR_COLUMNS or ours in columns:
            raise ConfigError(
                f"a column must be OURS=THEIRS with OURS once among {', '.join(OUR_COLUMNS)}, got {pair!r}; e.g. "
                "text=sentence."
            )
        columns[ours] = theirs or ours
    return columns


def find_row_files(path: str | Path) -> list[Path]:
    """The files of rows in a folder or glob, by their suffixes; a path of its own is a file, whatever its name.

    Raises: DataError for a folder or glob without such a file.
    """
    path = Path(path)
    is_glob = not path.exists() and glob.has_magic(str(path))
    if not (path.is_dir() or is_glob):
        return [path]
    inside = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = sorted(file for file in inside if file.is_file() and suffix_of(file) in SUFFIXES)
    if not files:
        raise DataError(
            f"{path} must hold files of rows, found no file that ends in {', '.join(SUFFIXES)} (or that and .gz); name "
            "the file."
        )
    return files


def suffix_of(path: Path) -> str:
    """A file's suffix in small letters, that before `.gz` of a zipped one."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_rows(
    path: str | Path,
    settings: RowSettings | None = None,
    *,
    on_bad: Callable[[str], None] | None = None,
    on_fault: Callable[[str], None] | None = None,
) -> Iterator[SourceRow]:
    """Every row of a file as a dictionary, its columns renamed as the settings say.

    JSON may be a list of objects, lines of objects, an object of columns, or one that holds its rows under one key.
    on_bad: is given the complaint about each row that cannot be read, instead of an error; on_fault that about bytes in
        another encoding and NUL characters, which are then replaced.
    Raises: DataError naming the file and the row for what is no row; for a file that is no table, JSON or Parquet, and
        text in another encoding; ConfigError for settings that mean nothing.
    """
    path, settings = Path(path), settings or RowSettings()
    renamed = settings.renamed
    for value, where in parsed_rows(path, settings, on_fault):
        try:
            row = SourceRow(_as_row(value, renamed, where), where)
        except DataError as complaint:
            if on_bad is None:
                raise
            on_bad(str(complaint))
        else:
            yield row


def _as_row(value: Any, renamed: Mapping[str, str], where: str) -> dict[str, Any]:
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, dict):
        raise DataError(
            f"{where} must be a JSON object, got {type(value).__name__}; write each row as an object."
        )
    taken: dict[str, Any] = {}
    keys: set[str] = set()
    for ours, theirs in renamed.items():
        key = find_key(value, theirs)
        if key is None and theirs.isdigit() and 0 < int(theirs) <= len(value):
            key = list(value)[int(theirs) - 1]
        if key is None:
            raise DataError(
                f"{where} must have a column {theirs!r} for {ours}, found {', '.join(map(repr, value))}; name another."
            )
        taken[ours] = value[key]
        keys.add(key)
    return {key: field for key, field in value.items() if key not in keys} | taken


def find_key(value: Mapping[str, Any], name: str) -> str | None:
    """The key of that name, exactly so or but for case, spaces and hyphens; None when there is none."""
    return name if name in value else next((key for key in value if folded(key) == folded(name)), None)


def parsed_rows(
    path: Path, settings: RowSettings, on_fault: Callable[[str], None] | None = None
) -> Iterator[Parsed]:
    """Each row as it was parsed, or the DataError that says why there is none; nothing is renamed or checked."""
    if settings.encoding:
        checked_encoding(settings.encoding)  # a wrong name is an error of its own, whatever the file
    head = head_of(path)
    kind = foreign_kind(head)
    if head.startswith(PARQUET_MAGIC) and (kind is not None or suffix_of(path) == ".parquet"):
        return read_parquet(path)
    if kind == "a tar archive" or path.name.lower().endswith(".tar.gz"):
        reviews = enumerate(read_imdb(path), start=1)
        return (({"text": text, "label": label}, f"{path} review {n}") for n, (text, label) in reviews)
    if suffix_of(path) in JSON_SUFFIXES or looks_json(head):
        return _json_rows(path, encoding_of(path, head, settings.encoding))
    fields = [*settings.renamed.values()]
    content = _whole(decoded(path, settings.encoding, on_fault=on_fault), path)
    return table_rows(content, path=str(path), delimiter=settings.delimiter, fields=fields)


def looks_json(head: bytes) -> bool:
    """Does a file begin as a JSON list or object of rows does?"""
    start = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").replace(b"\0", b"")
    after = start[1:].lstrip()[:1]
    return after in {b"{": b'"}', b"[": b'{["]'}[start[:1]] if start[:1] in (b"{", b"[") else False


def _whole(stretches: Iterable[str], path: Path) -> str:
    held: list[str] = []
    n_chars = 0
    for stretch in stretches:
        n_chars += len(stretch)
        if n_chars > MOST_WHOLE_CHARS:
            raise DataError(
                f"{path} must have at most {MOST_WHOLE_CHARS:,} characters, since it is read whole; write it as JSON "
                "lines, which are read one by one."
            )
        held.append(stretch)
    return "".join(held)


def _json_rows(path: Path, encoding: str) -> Iterator[Parsed]:
    """JSON lines, or one JSON document of any form that holds rows."""
    lines = (
        (line, where)
        for line, where in _raw_lines(path, encoding)
        if isinstance(line, DataError) or line.strip()
    )
    first = list(itertools.islice(lines, 2))
    parsed = [_json_value(*line) for line in first]
    if (
        parsed
        and isinstance(parsed[0][0], DataError)
        and str(first[0][0]).rstrip().endswith(("[", "{", ",", ":"))
    ):
        content = _whole(decoded(path, encoding), path)  # the first line of a document of many
        yield from _document(parse_json(content, where=str(path), finite=False), str(path))
    elif len(parsed) == 1 and isinstance(parsed[0][0], (list, dict)):
        yield from _document(parsed[0][0], str(path), line=parsed[0][1])
    else:
        yield from parsed
        yield from (_json_value(line, where) for line, where in lines)


def _json_value(line: str | DataError, where: str) -> Parsed:
    try:
        return (line if isinstance(line, DataError) else parse_json(line, where=where, finite=False)), where
    except DataError as complaint:
        return complaint, where


def _raw_lines(path: Path, encoding: str) -> Iterator[tuple[str | DataError, str]]:
    """The lines of a text file with their places; of one that has another encoding, the error instead."""
    if encoding.startswith(("utf-16", "utf-32")):
        lines = enumerate(lines_of(decoded(path, encoding)), start=1)
        yield from ((line, f"{path} line {number}") for number, line in lines)
        return
    n_read = 0
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path} line {number}"
            try:
                yield line.decode(encoding).removeprefix("\ufeff" if number == 1 else ""), where
            except UnicodeDecodeError as cause:
                yield wrong_encoding(where, cause, n_read, encoding), where
            n_read += len(line)


def _document(value: Any, where: str, *, line: str = "") -> Iterator[Parsed]:
    """The rows of one JSON value: a list of objects, an object of columns, or an object with its rows under a key."""
    if isinstance(value, list):
        yield from ((entry, f"{where} entry {number}") for number, entry in enumerate(value, start=1))
        return
    if not isinstance(value, dict):
        raise DataError(f"{where} must hold rows, got one {type(value).__name__}; write a list of objects.")
    tables = {
        key: rows
        for key, rows in value.items()
        if key not in _FIELDS and (_is_rows(rows) or _is_columns(rows))
    }
    if len(tables) > 1:
        raise DataError(
            f"{where} must hold one list of rows, found {', '.join(map(repr, tables))}; write each to its own file."
        )
    if tables:
        ((key, rows),) = tables.items()
        yield from _document(rows, f"{where}, {key},")
    elif {"columns", "data"} <= value.keys() and isinstance(value["data"], list):  # pandas, orient="split"
        rows = (dict(zip(value["columns"], row)) for row in value["data"])
        yield from ((row, f"{where} entry {number}") for number, row in enumerate(rows, start=1))
    elif _is_columns(value):
        columns = [column.values() if isinstance(column, dict) else column for column in value.values()]
        yield from (
            (dict(zip(value, row)), f"{where} entry {n}") for n, row in enumerate(zip(*columns), start=1)
        )
    else:
        yield value, line or f"{where} entry 1"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _is_columns(value: Any) -> bool:
    """Is it an object of columns: lists of one length, or pandas' tables of index -> value?"""
    if not isinstance(value, dict) or not value:
        return False
    columns = list(value.values())
    if all(isinstance(column, dict) for column in columns):
        return all(column.keys() == columns[0].keys() for column in columns) and bool(columns[0])
    is_lists = all(isinstance(column, list) for column in columns)
    return is_lists and len(set(map(len, columns))) == 1 and not any(map(_is_rows, columns))
