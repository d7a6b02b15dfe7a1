"""The book's figures as entries: expected value, tolerance, what each needs, and known reasons for other values."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.toml_tables import package_table

Verdict = Literal["agrees", "differs", "not run"]
GPT2_BPE = ("gpt2_bpe/encoder.json", "gpt2_bpe/vocab.bpe")
EFFORTS = ("seconds", "minutes", "hours")  # on two CPU cores
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "device": "the book ran on another device, whose arithmetic rounds differently",
        "dropout": "PyTorch draws other dropout masks on other operating systems for the same seed",
        "evaluation": "evaluation draws from the same generator, so evaluating more or less often changes the run",
        "library": "another PyTorch version may draw other random weights or choose other kernels",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One figure of the book.

    A value agrees by exactly one of `expected` (with `tolerance`), `below` and `band`.
    Raises: ConfigError for an entry without one of them, or with several.
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
            raise ConfigError(f"{self.id} must have one of expected, below and band; correct the table.")
        if self.effort not in EFFORTS or set(self.differs_by) - REASONS.keys():
            raise ConfigError(f"{self.id} has an unknown effort or reason; see EFFORTS and REASONS.")

    @property
    def chapter(self) -> str:
        """ "2" to "7", or "D" or "E" for an appendix."""
        name = self.id.partition(".")[0]
        return name[-1].upper() if name.startswith("appendix") else name.removeprefix("ch").lstrip("0")

    def shown_expectation(self) -> str:
        """The expected value as text."""
        if self.below is not None:
            return f"below {self.below:g}"
        if self.band is not None:
            return f"{self.band[0]:g} to {self.band[1]:g}"
        return repr(self.expected)  # with the quotation marks of a text, as the value is shown

    def agrees(self, value: Any) -> bool:
        """Whether the value is what the book prints, within the tolerance."""
        if self.below is not None:
            return bool(value < self.below)
        if self.band is not None:
            return bool(self.band[0] <= value <= self.band[1])
        return _is_near(value, self.expected, self.tolerance)


def read_table() -> list[Entry]:
    """Every entry, in the book's order.

    Raises: ConfigError for an invalid entry.
    """
    rows = package_table("scratchlm.book.ledger", "figures.toml")["entry"]
    entries = [from_dict(Entry, values, where="figures.toml") for values in rows]
    first_of_7 = next(i for i, entry in enumerate(entries) if entry.chapter == "7")
    return entries[:first_of_7] + [_bonus_entry(row) for row in bonus_rows()] + entries[first_of_7:]


def bonus_rows() -> list[dict[str, Any]]:
    """The rows of chapter 6's table of additional experiments: number, name, accuracies and settings."""
    rows: list[dict[str, Any]] = package_table("scratchlm.book.ledger", "bonus_table.toml")["experiments"]
    return rows


def _bonus_entry(row: Mapping[str, Any]) -> Entry:
    weights = [f"gpt2/{row.get('size', '124M')}"] if row.get("is_pretrained", True) else []
    return Entry(
        id=f"ch06.bonus-{row['number']:02d}",
        what=f"additional experiment {row['number']}, training, validation and test accuracy in %: {row['name']}",
        expected=row["accuracies"],
        tolerance=1.4,
        needs=(*weights, "sms_spam_collection/SMSSpamCollection", *GPT2_BPE),
        effort="hours",
        differs_by=("device", "library"),
        provenance="chapter 6, bonus table of additional experiments (A100)",
    )


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
        has_length = isinstance(value, (list, tuple)) and len(value) == len(expected)
        return has_length and all(_is_near(v, e, tolerance) for v, e in zip(value, expected))
    if isinstance(expected, (int, float)) and isinstance(value, (int, float)):
        return math.isclose(value, expected, rel_tol=0.0, abs_tol=tolerance)
    return bool(value == expected)
