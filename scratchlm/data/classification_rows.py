"""Read texts with labels from files."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from scratchlm.core.errors import DataError
from scratchlm.core.files import check_characters
from scratchlm.data.row_files import RowSettings, SourceRow, find_key, find_row_files, read_rows
from scratchlm.data.tables import LABEL_NAMES, TEXT_NAMES

_WHOLE = re.compile(r"(-?\d+)\.0+", re.ASCII)  # an integer in a pandas column with missing values


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledText:
    """A text and the name of its class."""

    text: str
    label: str


def read_labelled(
    paths: str | Path | Sequence[str | Path], settings: RowSettings | None = None
) -> list[LabelledText]:
    """Read labelled texts from files, in order; from folders and globs, the files with a known suffix.

    All forms of `read_rows` are read: tables with or without a header, JSON, JSON lines, Parquet, each also gzipped,
    and AG News and IMDb's archive of reviews as published.
    Raises: DataError naming the file and row for a row without text or label, and for a file without rows.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else paths
    texts: list[LabelledText] = []
    for path in [file for name in paths for file in find_row_files(name)]:
        found = [labelled_text(row) for row in read_rows(path, settings)]
        if not found:
            raise DataError(f"{path} has no labelled texts; check the file.")
        texts += found
    if not texts:
        raise DataError("labelled texts need at least one file, got none; name one.")
    return texts


def labelled_text(row: SourceRow) -> LabelledText:
    """The text and label of one row, under `text` and `label` or other common names.

    Raises: DataError naming the row when one of them is missing, empty or ambiguous.
    """
    text = _field(row, "text", TEXT_NAMES)
    label = label_name(_field(row, "label", LABEL_NAMES))
    for name, value in (("text", text), ("label", label)):
        if not isinstance(value, str) or not value.strip():
            problem = f"an empty {name}" if isinstance(value, str) else f"{value!r:.60} as its {name}"
            raise DataError(f"{row.where} has {problem}; fill it or remove the row.")
        check_characters(value, where=f"{row.where}, {name},")
    return LabelledText(text=text, label=label.strip())


def label_name(value: Any) -> Any:
    """A label as text: 1, 1.0 and "1" are one label, and so are true and "True"; other values are unchanged.

    Example:
        >>> label_name(1.0), label_name("1.0"), label_name(True), label_name(None)
        ('1', '1', 'True', None)
    """
    if isinstance(value, (float, Decimal)) and not math.isfinite(value):
        return None
    if isinstance(value, (bool, int, float, Decimal)):  # Parquet files of databases hold Decimal
        value = str(value)
    is_whole = isinstance(value, str) and _WHOLE.fullmatch(value.strip())
    return _WHOLE.sub(r"\1", value) if is_whole else value


def _field(row: SourceRow, ours: Literal["text", "label"], names: Sequence[str]) -> Any:
    """The value under our name, else under the only other common name that the row has."""
    keys = [key for key in (find_key(row.value, name) for name in names) if key is not None]
    if not keys or (len(keys) > 1 and keys[0].strip().casefold() != ours):
        found = ", ".join(map(repr, keys or row.value)) or "no column"
        raise DataError(
            f"{row.where} must have one column for the {ours}, got {found}; name it with --{ours}-field."
        )
    return row.value[keys[0]]
