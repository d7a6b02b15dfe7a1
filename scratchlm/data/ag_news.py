"""AG News as it is published: CSV without a header, in each row a topic's number, a title and a description."""

from __future__ import annotations

from collections.abc import Sequence

TOPICS = ("World", "Sports", "Business", "Sci/Tech")  # their numbers begin with 1


def news_item(cells: Sequence[str]) -> tuple[str, str] | None:
    """Text and topic of one row's cells, title and description joined by a space; None for no row of AG News.

    Source: Zhang, Zhao, LeCun 2015, ag_news_csv/readme.txt.
    """
    if len(cells) != 3 or cells[0] not in _NUMBERS:
        return None
    return f"{cells[1]} {cells[2]}", _NUMBERS[cells[0]]


_NUMBERS = {str(number): topic for number, topic in enumerate(TOPICS, start=1)}
