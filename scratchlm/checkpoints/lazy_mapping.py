"""A mapping that reads its values from disk on lookup."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class LazyMapping(Mapping[str, T]):
    """A mapping with known names, whose values `read` loads at every lookup.

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
