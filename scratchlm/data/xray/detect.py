"""What kind of data lies at a path: plain text, or rows to classify, to answer, to prefer, or token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.ag_news import is_ag_news
from scratchlm.data.row_fields import is_instruction
from scratchlm.data.shards import HEADER_FILE, is_nanogpt
from scratchlm.data.xray.byte_faults import ByteFaults, decoded_leniently

DataKind = Literal["text", "classification", "instruction", "preference", "shards"]
KINDS: tuple[DataKind, ...] = get_args(DataKind)

N_LINES_TRIED = 200  # of a file without a telling suffix
MOST_LABELS = 50
LONGEST_LABEL_CHARS = 40


def detect_kind(path: str | Path) -> DataKind:
    """Decide by suffix and by the first rows.

    A token folder is known by its header.json. JSON and CSV are known by their keys or columns; a file of any
    other kind whose first lines are all `label<TAB>text`, with few labels, is taken for classification, as the
    SMS Spam Collection is. What is left is text: files, folders and globs.
    Raises: DataError for a path that is missing, or whose JSON or CSV holds none of the known keys.
    """
    path = Path(path)
    if folder_of_tokens(path) is not None:
        return "shards"
    if not path.is_file():
        return "text"  # a folder or a glob; whether it is there, and holds text, its reader says
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".parquet", ".tar"):
        return "text" if suffix == ".parquet" else "classification"  # IMDb's archive of reviews
    head = _head(path)
    if suffix == ".json":
        return kind_of_keys(_first_of_json(path), where=str(path))
    if suffix == ".jsonl":
        return kind_of_keys(_first_of_jsonl(head), where=str(path))
    if suffix == ".csv":
        return (
            "classification"
            if is_ag_news(head)
            else kind_of_keys(dict.fromkeys(_csv_header(head)), where=str(path))
        )
    return "classification" if suffix == ".tsv" or _is_labelled(head) else "text"


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
    keys = {str(key).strip().casefold() for key in row}
    if {"chosen", "rejected"} <= keys:
        return "preference"
    if is_instruction(row):
        return "instruction"
    if {"text", "label"} <= keys:
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


def _head(path: Path) -> str:
    """The file's first stretch, as whole lines where it has any."""
    stretches = decoded_leniently(path, ByteFaults())
    try:
        return next(stretches, "")
    finally:
        stretches.close()  # type: ignore[attr-defined]  # a generator: its file must not stay open


def _first_of_json(path: Path) -> Mapping[str, Any]:
    text = "".join(decoded_leniently(path, ByteFaults()))
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as cause:
        raise DataError(
            f"{path} should be JSON, found: {cause}; repair it or name its kind with --kind."
        ) from cause
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, dict) else {}


def _first_of_jsonl(head: str) -> Mapping[str, Any]:
    for line in head.split("\n"):
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def _csv_header(head: str) -> list[str]:
    cells = [cell.strip().strip('"') for cell in head.split("\n", maxsplit=1)[0].split(",")]
    return cells if any(cells) else []


def _is_labelled(head: str) -> bool:
    """Every one of the first lines is a short label, a tab and a text, and few labels serve many lines."""
    whole = head.split("\n")[: -1 if len(head) > 1 and not head.endswith("\n") and "\n" in head else None]
    lines = list(islice((line for line in whole if line.strip()), N_LINES_TRIED))
    labels = {line.split("\t", maxsplit=1)[0] for line in lines}
    return (
        len(lines) >= 2
        and all("\t" in line for line in lines)
        and all(0 < len(label.strip()) <= LONGEST_LABEL_CHARS for label in labels)
        and len(labels) <= min(MOST_LABELS, max(2, len(lines) // 2))
    )
