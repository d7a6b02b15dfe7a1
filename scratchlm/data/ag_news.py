"""AG News as it is published: CSV without a header, in each row a topic's number, a title and a description."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from scratchlm.core.errors import DataError

TOPICS = ("World", "Sports", "Business", "Sci/Tech")  # their numbers begin with 1


def is_ag_news(content: str) -> bool:
    """Whether a CSV begins as AG News does: with a topic's quoted number instead of a header.

    Example:
        >>> is_ag_news('"3","Title","Text"'), is_ag_news('label,text')
        (True, False)
    """
    first = next(csv.reader(io.StringIO(content[:4096], newline="")), [])
    return news_item(first) is not None


def news_item(cells: Sequence[str]) -> tuple[str, str] | None:
    """Text and topic of one row's cells; None when they are no row of AG News."""
    if len(cells) != 3 or cells[0] not in _NUMBERS:
        return None
    return f"{cells[1]} {cells[2]}", _NUMBERS[cells[0]]


def read_ag_news(content: str, path: str | Path) -> list[tuple[str, str, int]]:
    """Each item as text, topic and line; the text is the title, a space and the description.

    Raises: DataError naming the file and line of a row that does not fit.
    Source: Zhang, Zhao, LeCun 2015, ag_news_csv/readme.txt.
    """
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            if not cells:
                continue
            item = news_item(cells)
            if item is None:
                raise DataError(
                    f"{path} line {reader.line_num} must be a topic from 1 to {len(TOPICS)}, a title and a "
                    f"description, found {', '.join(map(repr, cells))[:80]}; repair or remove it."
                )
            rows.append((*item, reader.line_num))
    except csv.Error as cause:
        raise DataError(
            f"{path} line {reader.line_num} must be well-formed CSV, found: {cause}; check its quotes."
        ) from cause
    return rows


_NUMBERS = {str(number): topic for number, topic in enumerate(TOPICS, start=1)}
