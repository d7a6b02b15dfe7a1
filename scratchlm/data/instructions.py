"""Instruction data: reading Alpaca files, and who trains and who tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.conversations import (
    Exchange,
    Turn,
    answer_turns,
    conversation_of,
    note_empty_texts,
    read_turns,
)
from scratchlm.data.row_fields import RowFields
from scratchlm.data.row_notes import RowNotes
from scratchlm.data.rows import RowSettings, read_rows


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


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructionSplit:
    """Which entries train, validate and test."""

    train: list[Instruction]
    val: list[Instruction]
    test: list[Instruction]


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


def split_instructions(
    entries: Sequence[Instruction], *, train_fraction: float = 0.85, test_fraction: float = 0.1
) -> InstructionSplit:
    """Cut the entries in order: first training, then test, the rest validation.

    Source: the book's split, chapter 7: 1,100 entries give 935, 110 and 55.
    Raises: ConfigError for fractions that leave nothing; DataError when a part would be empty.
    """
    if min(train_fraction, test_fraction) <= 0 or train_fraction + test_fraction >= 1:
        raise ConfigError(
            "train_fraction and test_fraction must be positive and leave something for validation, got "
            f"{train_fraction} and {test_fraction}; 0.85 and 0.1 are usual."
        )
    train_end = int(len(entries) * train_fraction)
    test_end = train_end + int(len(entries) * test_fraction)
    return _checked(
        train=entries[:train_end], val=entries[test_end:], test=entries[train_end:test_end], n=len(entries)
    )


def split_held_out(
    entries: Sequence[Instruction], held_out: Sequence[bool], *, val_fraction: float = 0.05, seed: int = 123
) -> InstructionSplit:
    """Test on the entries that are marked as held out; a hash picks val_fraction of the others to validate.

    Equal entries share a side of train and validation, and adding entries does not move the others.
    Raises: ConfigError for a val_fraction outside (0, 1); DataError when a part would be empty.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction must lie between 0 and 1, got {val_fraction}; 0.05 is usual.")
    if len(entries) != len(held_out):
        raise DataError(f"each entry needs one mark, got {len(entries)} entries and {len(held_out)} marks.")
    rest = [entry for entry, is_held_out in zip(entries, held_out) if not is_held_out]
    is_val = [_place(entry, seed) < val_fraction for entry in rest]
    return _checked(
        train=[entry for entry, chosen in zip(rest, is_val) if not chosen],
        val=[entry for entry, chosen in zip(rest, is_val) if chosen],
        test=[entry for entry, is_held_out in zip(entries, held_out) if is_held_out],
        n=len(entries),
    )


def _checked(
    *, train: Sequence[Instruction], val: Sequence[Instruction], test: Sequence[Instruction], n: int
) -> InstructionSplit:
    if not (train and val and test):
        raise DataError(
            f"a split needs entries in each part, got {len(train)} for training, {len(val)} for validation "
            f"and {len(test)} for test out of {n}; give more data or other fractions."
        )
    return InstructionSplit(train=list(train), val=list(val), test=list(test))


def _place(entry: Instruction, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the entry's texts and the seed."""
    key = json.dumps([seed, *entry.key])
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53
