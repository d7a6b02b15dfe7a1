"""From ids back to what they stand for, with a clear word about an id that stands for nothing."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import SupportsIndex, TypeVar

from scratchlm.core.errors import TokenizerError

T = TypeVar("T")


def look_up(table: Mapping[int, T], ids: Iterable[SupportsIndex]) -> list[T]:
    """What each id stands for; whole numbers of any library (NumPy, torch) will do.

    Raises: TokenizerError naming the first id outside the table and its position.
    """
    ids = list(ids)
    try:
        return [table[id_] for id_ in ids]  # type: ignore[index]
    except (KeyError, TypeError):
        return [_look_up_one(table, id_, position) for position, id_ in enumerate(ids)]


def _look_up_one(table: Mapping[int, T], id_: SupportsIndex, position: int) -> T:
    try:
        return table[operator.index(id_)]
    except (KeyError, TypeError):
        raise TokenizerError(
            f"ids must be whole numbers from 0 to {max(table, default=-1)}, found {id_!r} at position {position}; "
            "were they made by another tokenizer, or is this a batch of several rows?"
        ) from None
