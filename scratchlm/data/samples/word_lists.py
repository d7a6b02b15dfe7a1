"""Word lists and word forms for exercises and messages, from sheets/words.toml."""

import functools

from scratchlm.core.toml_tables import package_table

_WORDS = package_table("scratchlm.data.samples", "sheets/words.toml")
LISTS: dict[str, tuple[str, ...]] = {  # name of the members of a list -> the list in order
    kind: tuple(members.split()) for kind, members in _WORDS["lists"].items()
}


@functools.cache
def words(name: str) -> tuple[str, ...]:
    """The words or phrases of a list."""
    found = _WORDS[name]
    return tuple(found.split() if isinstance(found, str) else found)


@functools.cache
def pairs(name: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a list."""
    found = (pair.split() for pair in _WORDS[name].split(","))
    return tuple((one, other) for one, other in found)
