"""Download a data set from the Hugging Face hub as a .jsonl file, with the `datasets` library.

The library is optional and slow to import, so it is imported only when it is used. Rows are streamed into the file.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError, DownloadError, MissingDependencyError
from scratchlm.core.files import new_file


def export_hub_dataset(
    name: str,
    target: str | Path,
    *,
    columns: Mapping[str, str],
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    most_rows: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the named columns of a data set's rows, one JSON object per line; returns the number of rows.

    columns: our name of each field -> the data set's; at least one. Class numbers are written as class names.
    Raises: MissingDependencyError without `datasets`; DownloadError when the data set, its split or its configuration
        is not available; DataError for a column that is missing or has no text.
    """
    rows = _load(name, config=config, split=split, revision=revision)
    class_names = {theirs: _class_names(rows, theirs) for theirs in columns.values()}
    n_rows = 0
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_file(target) as partial, partial.open("w", encoding="utf-8") as file:
        for row in itertools.islice(_rows(rows, name), most_rows):
            n_rows += 1
            fields = {
                ours: _field(row, theirs, class_names[theirs], f"{name} row {n_rows}")
                for ours, theirs in columns.items()
            }
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
            if progress is not None:
                progress(n_rows)
        if n_rows == 0:
            raise DataError(f"{name} has no rows in its split {split!r}; name another --split.")
    return n_rows


def _load(name: str, *, config: str | None, split: str, revision: str | None) -> Any:
    try:
        import datasets
    except ImportError as cause:
        raise MissingDependencyError(
            f"{name!r} of the Hugging Face hub needs the library `datasets`, which is not installed: pip install "
            "'datasets>=4'"
        ) from cause
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, streaming=True)
    except (OSError, ValueError) as cause:  # no such data set, split or configuration; no network
        raise _not_available(name, cause) from cause


def _rows(rows: Any, name: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from rows
    except OSError as cause:
        raise _not_available(name, cause) from cause


def _not_available(name: str, cause: Exception) -> DownloadError:
    return DownloadError(
        f"{name!r} with that split and configuration cannot be loaded from the Hugging Face hub ({cause}); check the "
        "name on huggingface.co/datasets, and the network."
    )


def _class_names(rows: Any, column: str) -> list[str] | None:
    """The class names of a column of class numbers, if the data set has them."""
    feature = (rows.features or {}).get(column)
    names = getattr(feature, "names", None)
    return list(names) if names else None


def _field(row: Mapping[str, Any], column: str, class_names: list[str] | None, where: str) -> str:
    if column not in row:
        raise DataError(
            f"{where} has no column {column!r}, only {', '.join(map(repr, row))}; name another with --columns."
        )
    value = row[column]
    if isinstance(value, int) and not isinstance(value, bool):
        is_named = class_names is not None and 0 <= value < len(class_names)
        return class_names[value] if class_names is not None and is_named else str(value)
    if not isinstance(value, str):
        raise DataError(
            f"{where} must have text or a class in {column!r}, got {type(value).__name__}; name another column."
        )
    return value
