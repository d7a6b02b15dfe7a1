"""The ledger's entries: what the book prints, how near we must come, and what an honest run may differ by."""

from __future__ import annotations

import importlib.resources
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Verdict = Literal["agrees", "differs", "not run"]
EFFORTS = ("seconds", "minutes", "hours")  # on two CPU cores
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "device": "the book ran on another device, whose arithmetic rounds differently",
        "dropout": "PyTorch draws other dropout masks on other operating systems for the same seed",
        "evaluation": "evaluating draws from the same random generator, so another rhythm of it is another run",
        "library": "another PyTorch version may start from other random weights or choose other kernels",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One figure of the book.

    Exactly one of `expected`, `below` and `band` says when a value agrees.
    Raises: ConfigError for an entry that says none, or more than one.
    """

    id: str
    what: str
    provenance: str
    expected: Any = None
    tolerance: float = 0.0
    below: float | None = None
    band: tuple[float, float] | None = None
    needs: tuple[str, ...] = ()
    effort: str = "seconds"
    differs_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.expected, self.below, self.band)) != 1:
            raise ConfigError(f"{self.id} must have one of expected, below and band; mend the table.")
        if self.effort not in EFFORTS or set(self.differs_by) - REASONS.keys():
            raise ConfigError(f"{self.id} has an unknown effort or reason; see EFFORTS and REASONS.")

    @property
    def chapter(self) -> str:
        """ "2" to "7", or "D" or "E" for an appendix."""
        name = self.id.partition(".")[0]
        return name[-1].upper() if name.startswith("appendix") else name.removeprefix("ch").lstrip("0")

    def shown_expectation(self) -> str:
        """What a value must be, in words."""
        if self.below is not None:
            return f"below {self.below:g}"
        if self.band is not None:
            return f"{self.band[0]:g} to {self.band[1]:g}"
        return repr(self.expected)  # a text in its quotation marks, as the value beside it is shown

    def agrees(self, value: Any) -> bool:
        """Is the value what the book prints, within the tolerance?"""
        if self.below is not None:
            return bool(value < self.below)
        if self.band is not None:
            return bool(self.band[0] <= value <= self.band[1])
        return _is_near(value, self.expected, self.tolerance)


def read_table() -> list[Entry]:
    """Every entry, in the book's order.

    Raises: ConfigError for an entry that is not as it should be.
    """
    text = (importlib.resources.files(__package__ or "") / "figures.toml").read_text(encoding="utf-8")
    return [from_dict(Entry, values, where="figures.toml") for values in tomllib.loads(text)["entry"]]


def choose(entries: Iterable[Entry], *, chapters: Iterable[str]) -> list[Entry]:
    """The entries of these chapters ("4", "ch04", "d"), or all of them when none is named.

    Raises: ConfigError for a chapter without entries.
    """
    entries = list(entries)
    known = {entry.chapter for entry in entries}
    wanted = {_chapter_name(name) for name in chapters}
    for name in sorted(wanted - known):
        raise ConfigError(
            f"a chapter must be one of {', '.join(sorted(known))}, got {name!r}; {nearest(name, known)}"
        )
    return [entry for entry in entries if not wanted or entry.chapter in wanted]


def _chapter_name(name: str) -> str:
    short = name.strip().lower().removeprefix("appendix").removeprefix("chapter").removeprefix("ch")
    return short.strip(" -_.").lstrip("0").upper()


def _is_near(value: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(_is_near(v, e, tolerance) for v, e in zip(value, expected))
        )
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        return math.isclose(value, expected, rel_tol=0.0, abs_tol=tolerance)
    return bool(value == expected)
