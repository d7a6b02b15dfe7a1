"""Read preference data: requests with a chosen and a rejected answer."""

import re
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
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.row_fields import RowFields, RowNotes
from scratchlm.data.row_files import RowSettings, read_rows

ANSWERS = ("chosen", "rejected")
SPEAKERS = re.compile(r"(?:\A|\r?\n\r?\n)(Human|Assistant):[ ]?")  # in the texts of Anthropic's HH-RLHF


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """A task, optional input, the chosen answer and the rejected one.

    For a conversation of several turns this is the last request, and `history` holds the earlier exchanges.
    """

    instruction: str
    input: str
    chosen: str
    rejected: str
    system: str = ""  # the system prompt; "" for none
    history: tuple[Exchange, ...] = ()

    def with_answer(self, output: str) -> Instruction:
        """The task with the given answer, for a prompt template."""
        return Instruction(
            instruction=self.instruction,
            input=self.input,
            output=output,
            system=self.system,
            history=self.history,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceEntries:
    """The pairs of a file, and the number dropped because both answers are equal."""

    pairs: list[Preference]
    n_equal: int = 0


def read_preferences(
    path: str | Path, settings: RowSettings | None = None, *, notes: RowNotes | None = None
) -> PreferenceEntries:
    """Read the pairs of a preference file, in any form of `read_rows`; `preference_of` describes the rows.

    Pairs of equal answers are dropped and counted.
    notes: collects what else was dropped or converted; without it, that is logged.
    Raises: DataError naming the file and the row (its line in JSONL), from 1, for a row of another form; and for a
        file without a pair.
    """
    path = Path(path)
    collected = RowNotes() if notes is None else notes
    rows = list(read_rows(path, settings))
    pairs, n_equal = [], 0
    for value, where in rows:
        entry = preference_of(value, where=where, notes=collected)
        if entry is None:
            continue
        if entry.chosen != entry.rejected:
            pairs.append(entry)
        else:
            n_equal += 1
            collected.add("chosen is equal to rejected: the row is left out", where=where)
    if not pairs:
        raise DataError(collected.nothing_left(path, n_rows=len(rows), kind="pairs of different answers"))
    if notes is None:
        collected.log()
    return PreferenceEntries(pairs=pairs, n_equal=n_equal)


def preference_of(value: Any, *, where: str, notes: RowNotes) -> Preference | None:
    """Convert one row of a file to a pair; None, with a note, when it lacks two answers to one request.

    A row has the texts `chosen` and `rejected` and a request, optionally with an input, a system prompt and earlier
    turns (`history`), each under any of its names in `row_fields.NAMES`. Or both answers are lists of messages: whole
    conversations that differ in the last answer, or only what follows the request. Or they are whole conversations as
    text, with "Human:" and "Assistant:" before each message.
    Raises: DataError naming `where` for a row of another form.
    """
    row = RowFields(value, where=where, needs="a request, chosen and rejected")
    answers = [_answer(row, ours, notes=notes) for ours in ANSWERS]
    is_whole = not all(turns[0].is_answer for turns in answers)
    before, given = ([], "") if is_whole else _request(row, notes=notes)
    system = row.text("system")
    notes.leave_unused(row.unused({turn.text for turns in answers for turn in turns}))
    both = [conversation_of([*before, *turns], system=system, where=where, notes=notes) for turns in answers]
    chosen, rejected = both
    if chosen is None or rejected is None:
        return None
    *history, last = chosen.exchanges
    *other_history, other_last = rejected.exchanges
    if (chosen.system, history, last.request) != (rejected.system, other_history, other_last.request):
        notes.add("chosen and rejected answer different requests: the row is left out", where=where)
        return None
    if not (last.answer.strip() and other_last.answer.strip()):
        notes.add("the chosen or the rejected answer is empty: the row is left out", where=where)
        return None
    note_empty_texts(history, where=where, notes=notes)
    return Preference(
        instruction=last.request,
        input=given,
        chosen=last.answer,
        rejected=other_last.answer,
        system=chosen.system,
        history=tuple(history),
    )


def _answer(row: RowFields, ours: str, *, notes: RowNotes) -> list[Turn]:
    """The messages of one answer: the answer only, or a whole conversation."""
    other = next(name for name in ANSWERS if name != ours)
    if row.holds_list(ours) != row.holds_list(other) and ours in row and other in row:
        raise DataError(
            f"{row.where} must have both answers as texts or both as messages, got {row['chosen']!r:.60} and "
            f"{row['rejected']!r:.60}; write both alike."
        )
    has_request = "instruction" in row or "messages" in row
    turns = answer_turns(row, ours, notes=notes)
    if not row.holds_list(ours) and not has_request:
        turns = _transcript(turns[0].text)
    if not turns:
        raise DataError(f"{row.where} must have an answer under {ours!r}, got no messages; remove the row.")
    return turns


def _request(row: RowFields, *, notes: RowNotes) -> tuple[list[Turn], str]:
    """The messages before the answers, and the input to the last request."""
    history = read_turns(row["history"] or [], where=row.place("history"), notes=notes)
    for ours in ("messages", "instruction"):
        if row.holds_list(ours):
            return [*history, *read_turns(row[ours], where=row.place(ours), notes=notes)], ""
    request, given = row.request()
    turns = _transcript(request)
    if len(turns) > 1 and turns[-1] == Turn("assistant", ""):  # the mark that starts the answer
        del turns[-1]
    if turns[0].role == "user":
        return [*history, *turns], given
    return [*history, Turn("user", request)], given


def _transcript(text: str) -> list[Turn]:
    """Split a text at "Human:" and "Assistant:" into messages; a text without such a start is one answer."""
    begun = text.lstrip("\r\n")
    _, *parts = SPEAKERS.split(begun)
    if not begun.startswith("Human:"):
        return [Turn("assistant", text)]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [Turn(roles[name], message.strip()) for name, message in zip(parts[::2], parts[1::2])]
