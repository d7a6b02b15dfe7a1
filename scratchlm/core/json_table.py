"""Read settings from the JSON of other programs, and check the type of each value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

from scratchlm.core.errors import DataError, ScratchLMError
from scratchlm.core.files import read_json

T = TypeVar("T", int, float, str, bool, dict[str, Any], list[Any])
_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}
_LARGEST = 1 << 63  # larger than any size, count or id, and exact as a float


class JSONTable:
    """A table of settings from a file of another program; values are read by name and type.

    A value of null counts as missing. `where` names the table in messages.
    Raises: `error` for a value of another type, and for a number of 2**63 or more.
    Example:
        >>> table = JSONTable({"rank": 8, "alpha": 16, "targets": None}, where="adapter_config.json")
        >>> table.get("rank", int), table.get("alpha", float), table.get("targets", list, [])
        (8, 16.0, [])
    """

    def __init__(self, values: Any, *, where: str, error: type[ScratchLMError] = DataError) -> None:
        if not isinstance(values, Mapping):
            raise error(
                f"{where} must be a table of settings, got {values!r:.80}; restore it from another copy."
            )
        self.values: Mapping[str, Any] = values
        self.where, self.error = where, error

    @overload
    def get(self, name: str, kind: type[T]) -> T | None: ...
    @overload
    def get(self, name: str, kind: type[T], default: T) -> T: ...
    def get(self, name: str, kind: type[Any], default: Any = None) -> Any:
        """The value of that name; `default` when there is none."""
        value = self.values.get(name)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST:
            return float(value)
        is_fitting = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not is_fitting or (kind is int and abs(value) >= _LARGEST):
            raise self.wrong(name, _WORDS[kind])
        return value

    def need(self, name: str, kind: type[T]) -> T:
        """The value of that name, which is required."""
        value = self.get(name, kind)
        if value is None:
            raise self.wrong(name, _WORDS[kind])
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts, also where the file has a single text; [] when there is none."""
        value = self.values.get(name)
        items = [value] if isinstance(value, str) else value or []
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise self.wrong(name, "a list of texts")
        return items

    def table(self, name: str) -> JSONTable:
        """A table inside this one; an empty one when there is none."""
        return JSONTable(self.get(name, dict, {}), where=f"{self.where}: {name}", error=self.error)

    def wrong(self, name: str, wanted: str) -> ScratchLMError:
        """The error for a value of an unexpected type."""
        found = f"got {self.values[name]!r:.80}" if name in self.values else "got nothing"
        return self.error(
            f"{self.where} must hold {wanted} as {name}, {found}; restore it from another copy of the file."
        )


def read_json_table(path: str | Path, *, error: type[ScratchLMError] = DataError) -> JSONTable:
    """The table in a JSON file.

    Raises: `error` as `read_json` does, and for a value that is no table.
    """
    return JSONTable(read_json(path, error=error), where=str(path), error=error)
