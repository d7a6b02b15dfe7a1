"""Read rows from tables, JSON, JSON lines and Parquet, also gzipped, as dictionaries.

A file's format is detected from its content, not its name. `classification_rows`, `instruction_rows` and
`preference_rows` interpret the fields of a row.
"""

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
from scratchlm.data.tables import checked_delimiter, folded, table_rows
from scratchlm.data.text_files import (
    checked_encoding,
    decoded,
    encoding_of,
    head_of,
    lines_of,
    opened,
    path_of,
    wrong_encoding,
)

OUR_COLUMNS = ("text", "label", *NAMES, "prompt")
LABELLED, ANSWERED = OUR_COLUMNS[:2], OUR_COLUMNS[2:]  # columns for classifiers, and for assistants
JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
SUFFIXES = (".tsv", ".csv", *JSON_SUFFIXES, ".parquet")  # files that are read from folders and globs
MAX_WHOLE_CHARS = 1 << 31  # of a table or JSON document, which is read whole; JSON lines have no limit
# Fields of a row, in which a list is a value and not a table of rows.
_FIELDS = {name for names in NAMES.values() for name in names} - {"data"} | {"choices"}
Parsed = tuple[Any, str]  # a row's value, or the DataError explaining why there is none; and its place


S = TypeVar("S", bound="RowSettings")


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """Settings for reading files of rows; settings that are not given are detected.

    Raises: ConfigError for a wrong value.
    """

    text_field: str = "text"  # column or key that holds the text
    label_field: str = "label"  # column or key that holds the label
    columns: tuple[str, ...] = ()  # OURS=THEIRS, e.g. instruction=question output=answer
    encoding: str = ""  # encoding of text without a byte-order mark, e.g. windows-1252; default UTF-8
    delimiter: str = ""  # separates the cells of a table: one character, or the word tab

    def __post_init__(self) -> None:
        _ = self.renamed  # reports a column that is named twice, or is unknown
        checked_delimiter(self.delimiter)
        if self.encoding:
            checked_encoding(self.encoding)

    @property
    def renamed(self) -> dict[str, str]:
        """Our name of a column -> the file's, where they differ."""
        columns = parse_columns(self.columns)
        for ours, theirs in (("text", self.text_field), ("label", self.label_field)):
            if theirs != ours and columns.setdefault(ours, theirs) != theirs:
                raise ConfigError(
                    f"the column for {ours} must be named once, got {columns[ours]!r} and {theirs!r}; drop one."
                )
        return columns

    def only(self: S, *ours: str) -> S:
        """These settings with only the named columns: the stages of a run read different ones."""
        return dataclasses.replace(
            self,
            text_field=self.text_field if "text" in ours else "text",
            label_field=self.label_field if "label" in ours else "label",
            columns=tuple(pair for pair in self.columns if pair.partition("=")[0] in ours),
        )

    @property
    def text_column(self) -> str:
        """The file's name of the text column."""
        return self.renamed.get("text", "text")


class SourceRow(NamedTuple):
    """One row of a file: its fields, and its place for error messages."""

    value: dict[str, Any]
    where: str


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `OURS=THEIRS` pairs; a name alone means that the file uses our name.

    Raises: ConfigError for an unknown OURS, or one given twice.
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
    """Files of a folder or glob with a suffix of SUFFIXES; a path to a file is returned whatever its name is.

    Raises: DataError for a folder or glob without such a file, and for an empty path, which would be this folder.
    """
    path = path_of(path)
    is_glob = not path.exists() and glob.has_magic(str(path))
    if not (path.is_dir() or is_glob):
        return [path]
    inside = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = sorted(file for file in inside if file.is_file() and suffix_of(file) in SUFFIXES)
    if not files:
        raise DataError(
            f"{path} has no file that ends in {', '.join(SUFFIXES)} (or one of these and .gz); name the file "
            "itself."
        )
    return files


def suffix_of(path: Path) -> str:
    """A file's suffix in lower case; of a gzipped file, the one before `.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_rows(
    path: str | Path,
    settings: RowSettings | None = None,
    *,
    on_bad: Callable[[str], None] | None = None,
    on_fault: Callable[[str], None] | None = None,
) -> Iterator[SourceRow]:
    """Yield each row of a file as a dictionary, with columns renamed as the settings say.

    JSON may be a list of objects, lines of objects, an object of columns, or an object with its rows under one key.
    on_bad: called with the message for each unreadable row, instead of raising; on_fault likewise for bytes in
        another encoding and NUL characters, which are then replaced.
    Raises: DataError naming the file and row for a row that is not an object; for a file that is not a table, JSON or
        Parquet, and text in another encoding; ConfigError for wrong settings.
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
                f"{where} has no column {theirs!r} for {ours}, only {', '.join(map(repr, value))}; name another."
            )
        taken[ours] = value[key]
        keys.add(key)
    return {key: field for key, field in value.items() if key not in keys} | taken


def find_key(value: Mapping[str, Any], name: str) -> str | None:
    """The key with that name, or the same but for case, spaces and hyphens; None without one."""
    return name if name in value else next((key for key in value if folded(key) == folded(name)), None)


def parsed_rows(
    path: Path, settings: RowSettings, on_fault: Callable[[str], None] | None = None
) -> Iterator[Parsed]:
    """Yield each row as parsed, or the DataError for a row that cannot be; nothing is renamed or checked."""
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
    content = _read_whole(decoded(path, settings.encoding, on_fault=on_fault), path)
    return table_rows(content, path=str(path), delimiter=settings.delimiter, fields=fields)


def looks_json(head: bytes) -> bool:
    """Whether a file begins like a JSON list or object of rows."""
    start = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").replace(b"\0", b"")
    after = start[1:].lstrip()[:1]
    return after in {b"{": b'"}', b"[": b'{["]'}[start[:1]] if start[:1] in (b"{", b"[") else False


def _read_whole(stretches: Iterable[str], path: Path) -> str:
    held: list[str] = []
    n_chars = 0
    for stretch in stretches:
        n_chars += len(stretch)
        if n_chars > MAX_WHOLE_CHARS:
            raise DataError(
                f"{path} must have at most {MAX_WHOLE_CHARS:,} characters, since it is read whole; write it as JSON "
                "lines, which are read one by one."
            )
        held.append(stretch)
    return "".join(held)


def _json_rows(path: Path, encoding: str) -> Iterator[Parsed]:
    """Rows of JSON lines, or of one JSON document."""
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
        content = _read_whole(decoded(path, encoding), path)  # one document over several lines
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
    """Lines of a text file with their places; the error instead for a line in another encoding."""
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
    """Rows of one JSON value: a list of objects, an object of columns, or an object with its rows under a key."""
    if isinstance(value, list):
        yield from ((entry, f"{where} entry {number}") for number, entry in enumerate(value, start=1))
        return
    if not isinstance(value, dict):
        raise DataError(f"{where} must hold rows, got a {type(value).__name__}; write a list of objects.")
    others = {} if _is_one_row(value) else {key: rows for key, rows in value.items() if key not in _FIELDS}
    tables = {key: rows for key, rows in others.items() if _is_rows(rows) or _is_columns(rows)}
    if len(tables) > 1:
        raise DataError(
            f"{where} has several lists of rows ({', '.join(map(repr, tables))}); write each to its own file."
        )
    if tables:
        ((key, rows),) = tables.items()
        yield from _document(rows, f"{where}, {key},")
    elif {"columns", "data"} <= value.keys() and isinstance(value["data"], list):  # pandas, orient="split"
        yield from _split_rows(value["columns"], value["data"], where)
    elif _is_columns(value):
        columns = list(value.values())
        places = list(columns[0]) if isinstance(columns[0], dict) else range(len(columns[0]))
        for number, place in enumerate(places, start=1):
            yield {name: value[name][place] for name in value}, f"{where} entry {number}"
    else:
        yield value, line or f"{where} entry 1"


def _split_rows(names: Any, rows: list[Any], where: str) -> Iterator[Parsed]:
    """Rows of pandas' `orient="split"`: the names of the columns, and lists of their values."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where} must hold a list of names as columns, got {names!r:.60}; repair it.")
    if len(set(names)) < len(names):
        raise DataError(f"{where} must have differently named columns, got {names!r:.60}; rename one.")
    for number, row in enumerate(rows, start=1):
        place = f"{where} entry {number}"
        if isinstance(row, list) and len(row) == len(names):
            yield dict(zip(names, row)), place
        else:
            yield (
                DataError(f"{place} must be a list of {len(names)} values, got {row!r:.60}; repair it."),
                place,
            )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _is_one_row(value: Mapping[str, Any]) -> bool:
    """Whether it holds a conversation, or a request and an answer; its lists, e.g. of tools, are no tables then."""
    held = [field for key, field in value.items() if key in _FIELDS]
    return any(map(_is_rows, held)) or sum(isinstance(field, str) for field in held) > 1


def _is_columns(value: Any) -> bool:
    """Whether it is an object of columns: lists of one length, or pandas' index -> value objects."""
    if not isinstance(value, dict) or not value:
        return False
    columns = list(value.values())
    if all(isinstance(column, dict) for column in columns):
        return all(column.keys() == columns[0].keys() for column in columns) and bool(columns[0])
    is_lists = all(isinstance(column, list) for column in columns)
    return is_lists and len(set(map(len, columns))) == 1 and not any(map(_is_rows, columns))
