"""Read CSV, TSV and similar tables; the delimiter, quoting and header are detected.

A row is a dictionary keyed by the header. Without a header the columns are named `label` and `text` if the
content shows which is which, else by number: 1, 2, ... AG News, CoLA and fastText's `__label__` lines are recognised
in their published formats.
"""

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.row_fields import NAMES

NEWS_TOPICS = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}  # topics of AG News, by number


def news_item(cells: Sequence[str]) -> tuple[str, str] | None:
    """Text (title and description joined) and topic of an AG News row; None for any other row.

    Source: Zhang, Zhao, LeCun 2015, ag_news_csv/readme.txt: no header; topic number, title, description.
    """
    if len(cells) != 3 or cells[0] not in NEWS_TOPICS:
        return None
    return f"{cells[1]} {cells[2]}", NEWS_TOPICS[cells[0]]


DELIMITERS = ("\t", ",", ";", "|")
TEXT_NAMES = (
    "text", "sentence", "message", "content", "sms", "review", "comment", "tweet", "body", "utterance", "email",
    "comment_text", "review_text", "v2",
)  # fmt: skip
LABEL_NAMES = (
    "label", "category", "class", "sentiment", "target", "intent", "topic", "tag", "polarity", "v1",
)  # fmt: skip
OTHER_NAMES = tuple(name for names in NAMES.values() for name in names)  # instruction and preference data
KNOWN_NAMES = frozenset((*TEXT_NAMES, *LABEL_NAMES, *OTHER_NAMES))
N_ROWS_TRIED = 500
MAX_LABEL_CHARS = 60
MAX_FIELD_CHARS = 2**31 - 1  # Python's default limit of 131,072 rejects long documents

FASTTEXT_LABEL = re.compile(r"^__label__(\S+)[ \t]+", re.MULTILINE)

EXCEL_MARK = re.compile(r"sep=([^\r\n])\r?\n")  # a first line that tells Excel the delimiter

Cells = tuple[list[str], int]  # of one row, and the line it ends on


@dataclass(frozen=True, kw_only=True, slots=True)
class TableForm:
    """The format of a table's text."""

    delimiter: str
    is_quoted: bool  # else quote characters are text
    names: tuple[str, ...]  # of the columns
    has_header: bool
    is_news: bool = False  # AG News as published


def folded(name: str) -> str:
    """A column's name in the form used for comparing: case, spaces and hyphens do not matter."""
    return "_".join(name.strip().casefold().replace("-", " ").split())


def table_rows(
    content: str, *, path: str, delimiter: str = "", fields: Collection[str] = ()
) -> Iterator[tuple[dict[str, str] | DataError, str]]:
    """Yield each row as a dictionary, or the DataError explaining why it cannot be read, and its place.

    fields: column names given by the user; they imply that the first row is the header.
    """
    content = usual_lines(content, path=path)
    n_before = 0  # lines before the table
    if mark := EXCEL_MARK.match(content):
        delimiter, content, n_before = delimiter or mark[1], content[mark.end() :], 1
    form = table_form(content, delimiter=delimiter, fields=fields)
    number = 0
    try:
        for index, (cells, number) in enumerate(_cells(content, form)):
            where = f"{path} line {number + n_before}"
            if index > 0 or not form.has_header:
                yield _row(cells, form, where), where
    except csv.Error as cause:
        where = f"{path} line {number + n_before + 1}"
        yield DataError(f"{where} must be well-formed CSV, got: {cause}; check its quotes."), where


def usual_lines(content: str, *, path: str) -> str:
    """A table's text with `\\n` or `\\r\\n` between lines, and fastText's `__label__ham text` as `ham<TAB>text`.

    Old programs for the Macintosh, and Excel's "CSV (Macintosh)", end lines with `\\r` alone.
    Raises: DataError for a fastText line with several labels.
    """
    if "\n" not in content and '"' not in content:  # Python's csv reads quoted tables with any line ends
        content = content.replace("\r", "\n")
    if not content.startswith("__label__"):
        return content
    content = FASTTEXT_LABEL.sub("\\1\t", content)
    several = re.search(r"^[^\t\n]+\t__label__", content, re.MULTILINE)
    if several:
        line = content.count("\n", 0, several.start()) + 1
        raise DataError(
            f"{path} line {line} has several labels; a classifier needs exactly one, so keep one."
        )
    return content


def checked_delimiter(name: str) -> str:
    """The delimiter that the user named; "" for none.

    Raises: ConfigError for more than one character, and for one that has another meaning in a table.
    """
    delimiter = {"tab": "\t", "\\t": "\t"}.get(name, name)
    if len(delimiter) > 1 or delimiter in ('"', "\r", "\n"):
        raise ConfigError(f"delimiter must be one character, or the word tab, got {delimiter!r}; change it.")
    return delimiter


def table_form(content: str, *, delimiter: str = "", fields: Collection[str] = ()) -> TableForm:
    """Detect the delimiter, quoting and column names of a table from its first rows.

    Raises: ConfigError for a delimiter of more than one character.
    """
    delimiter = checked_delimiter(delimiter)
    wanted = {folded(field) for field in fields if not field.isdigit()}
    first_line = content[: 1 << 20].lstrip("\r\n").split("\n", maxsplit=1)[0]
    candidates = [delimiter] if delimiter else [one for one in DELIMITERS if one in first_line]
    if not candidates:  # one column, or not a table
        candidates = [","] if folded(first_line.strip('"')) in KNOWN_NAMES | wanted else ["\t"]
    return max((_form(content, one, wanted) for one in candidates), key=lambda scored: scored[0])[1]


def _form(content: str, delimiter: str, wanted: set[str]) -> tuple[tuple[object, ...], TableForm]:
    """The table form with this delimiter, and a score for it; the highest score wins."""
    is_quoted = delimiter != "\t" or _has_quoting(content, delimiter)
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # reported when the rows are read
        form = TableForm(delimiter=delimiter, is_quoted=is_quoted, names=(), has_header=False)
        rows.extend(cells for cells, _ in islice(_cells(content, form), N_ROWS_TRIED))
    is_news = delimiter == "," and bool(rows) and news_item(rows[0]) is not None
    has_header = not is_news and _is_header(rows, wanted)
    if is_news:
        names: tuple[str, ...] = ("label", "text")
    elif has_header:
        names = tuple(name.strip() or str(i) for i, name in enumerate(rows[0], start=1))
    else:
        names = _names_by_content(rows)
    known = {folded(name) for name in names if has_header} & (KNOWN_NAMES | wanted)
    is_even = len({len(row) for row in rows}) == 1
    has_labels = _label_column(rows[has_header:]) is not None
    score = (len(known) > 1 or is_news, delimiter == "\t", is_even, has_labels, len(names))
    return score, TableForm(
        delimiter=delimiter, is_quoted=is_quoted, names=names, has_header=has_header, is_news=is_news
    )


def _cells(content: str, form: TableForm) -> Iterator[Cells]:
    if not form.is_quoted:
        lines = content.rstrip("\r\n").split("\n")  # no other character ends a line of such a table
        for number, line in enumerate(lines if lines != [""] else [], start=1):
            yield line.removesuffix("\r").split(form.delimiter), number
        return
    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=form.delimiter, strict=True)
    for cells in reader:
        if cells:  # else a blank line, which CSV writers may leave at the end
            yield cells, reader.line_num


def _has_quoting(content: str, delimiter: str) -> bool:
    """Whether quote characters enclose cells; in the SMS Spam Collection, for example, they are part of the text.

    They enclose cells if every row is well-formed that way and the quoted cells are those that a CSV writer quotes:
    either only cells that need quotes, or all that are not numbers. If lines inside a cell look like rows, quotes are
    text: otherwise two messages, one beginning and one ending with a quote mark, would become one.
    """
    if '"' not in content:
        return False
    csv.field_size_limit(MAX_FIELD_CHARS)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    at, widths, n_plain_texts, n_idle_quotes = 0, set(), 0, 0
    try:
        for cells in reader:
            widths.add(len(cells) or 1)
            for cell in cells:
                needs = any(mark in cell for mark in (delimiter, '"', "\n", "\r"))
                if '"' not in cell and _looks_like_rows(cell, delimiter, len(cells)):
                    return False
                if content.startswith('"', at):
                    n_idle_quotes += not needs
                    at += len(cell) + cell.count('"') + 2
                elif needs:  # no CSV writer leaves a quote mark in an unquoted cell
                    return False
                else:
                    n_plain_texts += not _is_number(cell)
                    at += len(cell)
                at += content.startswith(delimiter, at)
            at += 2 if content.startswith("\r\n", at) else 1
    except csv.Error:
        return False
    return len(widths) == 1 and (n_idle_quotes == 0 or n_plain_texts == 0)


def _looks_like_rows(cell: str, delimiter: str, width: int) -> bool:
    rest = cell.split("\n")[1:]
    return bool(rest) and all(line.count(delimiter) == width - 1 for line in rest)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_header(rows: Sequence[Sequence[str]], wanted: set[str]) -> bool:
    """Whether the first row names the columns."""
    if not rows:
        return False
    first, rest = [folded(cell) for cell in rows[0]], rows[1:]
    if wanted:  # the user gave column names, so there is a header
        return True
    n_known = len(set(first) & KNOWN_NAMES)
    if n_known > 1 or (n_known == 1 and len(first) == 1):
        return True
    is_new = all(cell not in column for cell, column in zip(rows[0], map(set, zip(*rest))))
    is_names = all(cell and len(cell) <= MAX_LABEL_CHARS and " " not in cell.strip() for cell in rows[0])
    if not (is_new and is_names and len(set(first)) == len(first)):
        return False
    n_with_words = sum(any(" " in cell.strip() for cell in row) for row in rest)
    return n_known == 1 or (_label_column(rest) is not None and n_with_words > 0.8 * len(rest))


def _n_labels(values: Sequence[str]) -> int | None:
    """The number of labels in a column whose values are few, short and repeated; None for other columns."""
    distinct = {value.strip() for value in values}
    are_labels = 1 < len(distinct) <= len(values) // 2 and max(map(len, distinct)) <= MAX_LABEL_CHARS
    return len(distinct) if are_labels else None


def _label_column(rows: Sequence[Sequence[str]]) -> int | None:
    """Number of the only column whose values are labels; None for no such column or several."""
    width = min((len(row) for row in rows), default=0)
    found = [i for i in range(width) if _n_labels([row[i] for row in rows]) is not None]
    return found[0] if len(found) == 1 else None


def _names_by_content(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Name the columns of a table without a header, finding label and text by content."""
    widths = {len(row) for row in rows}
    if widths == {4} and all(row[1] in ("0", "1") and row[2] in ("", "*") for row in rows):
        return ("source", "label", "mark", "text")  # CoLA as published
    labels = _label_column(rows)
    is_constant = len(widths) == 1 and len(rows) > 1
    if not is_constant or max(widths) <= 2:  # two columns; further tabs belong to the text
        n_last = _n_labels([row[-1] for row in rows])
        is_last = n_last is not None and n_last < len({row[0].strip() for row in rows})
        return ("text", "label") if is_last else ("label", "text")
    names = [str(i) for i in range(1, max(widths) + 1)]
    if labels is not None:
        sizes = [sum(len(row[i]) for row in rows) * (i != labels) for i in range(len(names))]
        names[labels], names[sizes.index(max(sizes))] = "label", "text"
    return tuple(names)


def _row(cells: list[str], form: TableForm, where: str) -> dict[str, str] | DataError:
    names, shown = form.names, {"\t": "tab"}.get(form.delimiter, repr(form.delimiter))
    if form.is_news:
        item = news_item(cells)
        if item is None:
            return DataError(
                f"{where} must be a topic from 1 to 4, a title and a description, as in AG News, got "
                f"{', '.join(map(repr, cells))[:80]}; repair or remove it."
            )
        return {"text": item[0], "label": item[1]}
    extra = len(cells) - len(names)
    if extra > 0 and not form.is_quoted:  # further tabs belong to a text in the last or first column
        if folded(names[-1]) in TEXT_NAMES:
            cells = [*cells[: len(names) - 1], form.delimiter.join(cells[len(names) - 1 :])]
        elif folded(names[0]) in TEXT_NAMES:
            cells = [form.delimiter.join(cells[: extra + 1]), *cells[extra + 1 :]]
    if len(cells) == 1 < len(names):
        expected = ("<TAB>" if form.delimiter == "\t" else form.delimiter).join(names)
        return DataError(
            f"{where} must be {expected}, but {cells[0]!r:.60} has no {shown}; add it, or name what "
            "separates the cells with --delimiter."
        )
    if len(cells) != len(names):
        return DataError(
            f"{where} must have {len(names)} cells as the {'header' if form.has_header else 'first row'} has, got "
            f"{len(cells)}; quote texts that contain a {shown} or a line break."
        )
    twice = [name for name, n in Counter(map(folded, names)).items() if n > 1]
    if twice:
        return DataError(f"{where} must have differently named columns, got {twice[0]!r} twice; rename one.")
    return dict(zip(names, cells))
