"""Read instruction data: Alpaca files, chat data sets and others."""

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
    """A task, optional input, and the expected answer; `skill` names the kind of task where known.

    For a conversation of several turns these are the last exchange, and `history` holds the earlier ones.
    """

    instruction: str
    input: str
    output: str
    skill: str = ""
    system: str = ""  # the system prompt; "" for none
    history: tuple[Exchange, ...] = ()

    @property
    def n_exchanges(self) -> int:
        """The number of requests with their answers, including the last."""
        return len(self.history) + 1

    @property
    def key(self) -> list[object]:
        """All texts of the entry, for hashes; system prompt and history are added only where there are any."""
        more = [self.system, [list(exchange) for exchange in self.history]]
        return [self.instruction, self.input, self.output, *(more if self.system or self.history else [])]


def read_instructions(
    path: str | Path, settings: RowSettings | None = None, *, notes: RowNotes | None = None
) -> list[Instruction]:
    """Read the entries of an instruction file, in any form of `read_rows`; `instruction_of` describes the rows.

    notes: collects what was dropped or converted; without it, that is logged.
    Raises: DataError naming the file and the row (its line in JSONL), from 1, for a row of another form; and for a
        file without a usable entry.
    """
    path = Path(path)
    collected = RowNotes() if notes is None else notes
    rows = list(read_rows(path, settings))
    found = (instruction_of(value, where=where, notes=collected) for value, where in rows)
    entries = [entry for entry in found if entry is not None]
    if not entries:
        raise DataError(collected.nothing_left(path, n_rows=len(rows), kind="instruction entries"))
    if notes is None:
        collected.log()
    return entries


def instruction_of(value: Any, *, where: str, notes: RowNotes) -> Instruction | None:
    """Convert one row of a file to an entry; None, with a note, when it has no request with an answer.

    A row has a request and an answer, as texts or lists of messages, and optionally an input, a system prompt,
    earlier turns (`history`) and a skill; or it has one list of messages. Each field may have any of its names in
    `row_fields.NAMES`. An answer may be empty.
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
