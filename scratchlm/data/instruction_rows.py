"""Instruction data: reading Alpaca files, and who trains and who tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.data.conversations import (
    Exchange,
    Turn,
    answer_turns,
    conversation_of,
    note_empty_texts,
    read_turns,
)
from scratchlm.data.row_fields import RowFields, RowNotes
from scratchlm.data.row_files import RowSettings, read_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """A task in words, perhaps an input to it, and the answer wanted; `skill` names its kind where known.

    In a conversation of several turns it is the last exchange; `history` holds those before it.
    """

    instruction: str
    input: str
    output: str
    skill: str = ""
    system: str = ""  # what the assistant is told about itself; "" = nothing
    history: tuple[Exchange, ...] = ()

    @property
    def n_exchanges(self) -> int:
        """Requests with their answers, the last one included."""
        return len(self.history) + 1

    @property
    def key(self) -> list[object]:
        """All of its texts, for hashes: an entry of one exchange has three, as it always had."""
        more = [self.system, [list(exchange) for exchange in self.history]]
        return [self.instruction, self.input, self.output, *(more if self.system or self.history else [])]


def read_instructions(
    path: str | Path, settings: RowSettings | None = None, *, notes: RowNotes | None = None
) -> list[Instruction]:
    """The entries of a file of instructions, in any form that `read_rows` reads.

    `instruction_of` says what a row may look like. `notes` collects what was not taken as it stands; without it, that
    is logged.
    Raises: DataError naming the file and the row's number (its line in JSONL), both from 1, for a row of another
        form; and for a file without an entry that can be trained on.
    """
    path = Path(path)
    told = RowNotes() if notes is None else notes
    rows = list(read_rows(path, settings))
    found = (instruction_of(value, where=where, notes=told) for value, where in rows)
    entries = [entry for entry in found if entry is not None]
    if not entries:
        raise DataError(told.nothing_left(path, n_rows=len(rows), kind="instruction entries"))
    if notes is None:
        told.log()
    return entries


def instruction_of(value: Any, *, where: str, notes: RowNotes) -> Instruction | None:
    """One row of a file as an entry; None, with a note, when it holds no request with an answer.

    A row holds a request and an answer, as texts or as lists of messages, and perhaps an input, a system prompt,
    earlier turns (`history`) and a skill; or it holds a list of messages. Each field may have any of its names in
    `row_fields.NAMES`. An answer may be empty: the right one is to say nothing.
    Raises: DataError naming `where` for a row of another form.
    """
    row = RowFields(value, where=where, needs="instruction and output, or a list of messages")
    turns, given = read_turns(row["history"] or [], where=row.place("history"), notes=notes), ""
    if row.holds_list("messages") or ("messages" in row and "instruction" not in row):
        turns += read_turns(row["messages"], where=row.place("messages"), notes=notes, may_be_texts=True)
    elif row.holds_list("instruction"):
        turns += read_turns(row["instruction"], where=row.place("instruction"), notes=notes)
        turns += answer_turns(row, "output", notes=notes)
    else:
        request, given = row.request()
        turns += [Turn("user", request), *answer_turns(row, "output", notes=notes)]
    found = conversation_of(turns, system=row.text("system"), where=where, notes=notes)
    skill = row["skill"] if isinstance(row["skill"], str) else ""
    notes.leave_unused(row.unused({turn.text for turn in turns}))
    if found is None:
        return None
    note_empty_texts(found.exchanges, where=where, notes=notes)
    *history, last = found.exchanges
    return Instruction(
        instruction=last.request,
        input=given,
        output=last.answer,
        skill=skill,
        system=found.system,
        history=tuple(history),
    )
