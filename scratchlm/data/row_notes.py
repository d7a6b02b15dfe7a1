"""What the reader of a file of rows did not take as it stands: counted, and put into sentences."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Note:
    n: int
    first: str  # where the first of these rows stands
    last: str


@dataclass(slots=True)
class RowNotes:
    """Count the rows of which something is left out, joined or read in another form, and the fields not used.

    Example:
        >>> notes = RowNotes()
        >>> notes.add("an answer is empty", where="a.jsonl line 3")
        >>> notes.leave_unused(["id", "source"])
        >>> notes.sentences()
        ['In 1 row an answer is empty (a.jsonl line 3).', 'Fields not used: id, source.']
    """

    _notes: dict[str, _Note] = field(default_factory=dict)
    _unused: dict[str, None] = field(default_factory=dict)  # a set that keeps its order

    def add(self, what: str, *, where: str) -> None:
        """Count the row at `where`, once for each `what`: a clause that goes on from "In 3 rows"."""
        note = self._notes.setdefault(what, _Note(0, where, ""))
        if note.last != where:
            note.n += 1
            note.last = where

    def leave_unused(self, names: Iterable[str]) -> None:
        """Remember fields that hold something and are not read."""
        self._unused |= dict.fromkeys(names)

    def sentences(self) -> list[str]:
        """What there is to say, in the order in which it was met; the unused fields last."""
        told = []
        for what, note in self._notes.items():
            rows, the_first = ("row", "") if note.n == 1 else ("rows", "the first: ")
            told.append(f"In {note.n:,} {rows} {what} ({the_first}{note.first}).")
        if self._unused:
            told.append(f"Fields not used: {', '.join(self._unused)}.")
        return told

    def nothing_left(self, path: Path, *, n_rows: int, kind: str) -> str:
        """The message about a file of which no row can be used."""
        why = "".join(f" {sentence}" for sentence in self.sentences())
        return f"{path} must hold {kind}, got none that can be used in {n_rows:,} rows; check the file.{why}"

    def log(self) -> None:
        """Give each sentence as a warning."""
        for sentence in self.sentences():
            logger.warning("%s", sentence)
