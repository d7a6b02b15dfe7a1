"""What kind of data lies at a path: plain text, or rows to classify, to answer, to prefer, or token ids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.file_kinds import PARQUET_MAGIC, foreign_kind
from scratchlm.data.audit.byte_faults import ByteFaults, decoded_leniently
from scratchlm.data.row_fields import is_instruction
from scratchlm.data.rows import SUFFIXES, RowSettings, looks_json, read_rows, suffix_of
from scratchlm.data.shards import HEADER_FILE, is_nanogpt
from scratchlm.data.tables import LABEL_NAMES, TEXT_NAMES, folded, table_form
from scratchlm.data.text_files import head_of

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
