"""Files of entries: a JSON list, or one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import parse_json, read_utf8


def _strictly(line: str, where: str) -> Any:
    return parse_json(line, where=where)


def read_json_entries(
    path: str | Path, *, parse_line: Callable[[str, str], Any] = _strictly
) -> list[tuple[Any, str]]:
    """Every entry as parsed, with the words that name its place: its number, in JSONL its line, both from 1.

    A file is JSONL by the suffix .jsonl, whose lines `parse_line` reads; empty lines are passed over. An empty list
    is the caller's to judge.
    Raises: DataError for what is no JSON, and for another value than a list.
    """
    path = Path(path)
    content = read_utf8(path)
    if path.suffix.lower() == ".jsonl":
        lines = enumerate(content.split("\n"), start=1)
        named = [(line, f"{path} line {number}") for number, line in lines if line.strip()]
        return [(parse_line(line, where), where) for line, where in named]
    values = parse_json(content, where=str(path))
    if not isinstance(values, list):
        raise DataError(
            f"{path} must be a JSON list of entries, found {type(values).__name__}; put the entries in [ ], or "
            "name the file .jsonl when each line is one."
        )
    return [(value, f"{path} entry {number}") for number, value in enumerate(values, start=1)]
