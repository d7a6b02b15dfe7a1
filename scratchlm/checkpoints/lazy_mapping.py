"""A mapping whose values are read from disk when they are looked up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class LazyMapping(Mapping[str, T]):
    """Names that are known, with values that `read` loads each time they are looked up.

    Example:
        >>> LazyMapping(["a"], str.upper)["a"]
        'A'
    """

    def __init__(self, names: Collection[str], read: Callable[[str], T]) -> None:
        self._names, self._read = names, read

    def __getitem__(self, name: str) -> T:
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
