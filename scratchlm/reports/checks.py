"""Figures that contradict themselves are refused before a page is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from scratchlm.core.errors import DataError
from scratchlm.reports.formats import is_number

Data: TypeAlias = Mapping[str, Any]  # what a run, or one stage of it, tells about itself


def check_share(value: Any, name: str) -> None:
    """Refuse what is no share of one.

    Raises: DataError when the value is no number from 0 to 1.
    """
    if not is_number(value) or not 0 <= value <= 1 + 1e-6:  # float32 sums end a little past one
        raise DataError(
            f"the report needs shares of one, from 0 to 1, found {name} = {value!r}; "
            "divide a percentage by 100."
        )


def check_square(matrix: Sequence[Sequence[Any]], side: int, *, name: str, advice: str) -> None:
    """Refuse a matrix that does not fit its labels.

    Raises: DataError when the matrix has not `side` rows of `side` numbers.
    """
    widths = {len(row) for row in matrix}
    if len(matrix) != side or widths - {side}:
        raise DataError(
            f"the report needs {name} of {side} rows and {side} columns, one of each per label, "
            f"found {len(matrix)} rows of {sorted(widths)} numbers; {advice}."
        )
