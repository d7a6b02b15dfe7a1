"""Find the fields of an instruction or preference row under any common name, and report unused fields."""

import logging
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError
from scratchlm.core.files import check_characters

NAMES = {  # our name of a field -> the names in data sets; the first with a value is read
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "contents", "data"),
    "instruction": ("instruction", "prompt", "question", "query", "problem", "inputs", "input"),
    "input": ("input", "context"),
    "output": ("output", "response", "completion", "answer", "solution", "target", "targets"),
    "system": ("system", "system_prompt", "system_message"),
    "history": ("history",),
    "skill": ("skill",),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
}  # fmt: skip


MEDIA_FIELDS = {"image", "images", "audio", "audios", "video", "videos"}
TREE_FIELDS = {"message_tree_id", "parent_id", "replies"}  # OpenAssistant's


def is_instruction(row: Mapping[str, Any]) -> bool:
    """Whether the row has a request and its answer, or a conversation."""
    by_name = {str(name).strip().casefold(): value for name, value in row.items()}
    has = {
        ours: [name for name in NAMES[ours] if name in by_name]
        for ours in ("instruction", "output", "messages")
    }
    is_conversation = any(name != "data" or isinstance(by_name[name], list) for name in has["messages"])
    return bool(is_conversation or TREE_FIELDS & by_name.keys() or (has["instruction"] and has["output"]))


def has_value(value: Any) -> bool:
    """Whether a field holds something: 0 and false do, as `weight: 0` of a message."""
    return value not in (None, "", [], {})


class RowFields:
    """The fields of one row, found in any letter case; remembers which were read.

    Raises: DataError for a row that is not an object, and for known forms that cannot be trained on.
    """

    def __init__(self, row: Any, *, where: str, needs: str) -> None:
        if not isinstance(row, Mapping):
            raise DataError(f"{where} must be an object with {needs}, got {row!r:.60}; repair it.")
        self.where = where
        self._values: dict[str, Any] = {}
        self._as_written: dict[str, str] = {}
        for name in sorted(map(str, row), key=str.islower):  # lower case comes last and has precedence
            self._as_written[name.strip().casefold()] = name
            self._values[name.strip().casefold()] = row[name]
        self._used: dict[str, str] = {}  # their name -> ours
        self._refuse_by_name()

    def __contains__(self, ours: str) -> bool:
        return self._name(ours) is not None

    def __getitem__(self, ours: str) -> Any:
        """The field's value, marked as used; None when the row has none."""
        name = self._name(ours)
        if name is None:
            return None
        self._used[name] = ours
        return self._values[name]

    def holds_list(self, ours: str) -> bool:
        """Whether the field is a list of messages (also as JSON text, or a single message) rather than text."""
        value = self._values.get(self._name(ours) or "")
        is_json = isinstance(value, str) and value.lstrip().startswith('[{"')
        return isinstance(value, list | Mapping) or is_json

    def request(self) -> tuple[str, str]:
        """Instruction and input as texts; an empty instruction is replaced by the input."""
        request, given = self.text("instruction", is_needed=True), self.text("input")
        return (request, given) if request.strip() or not given else (given, "")

    def place(self, ours: str) -> str:
        """The row and the field, for error messages."""
        return f"{self.where}, {self._name(ours) or ours}"

    def text(self, ours: str, *, is_needed: bool = False) -> str:
        """The field's text; "" for an optional field that is missing.

        Raises: DataError for a value that is not text, and for a missing field that is needed.
        """
        name, value = self._name(ours), self[ours]
        if value is None and not is_needed:
            return ""
        if not isinstance(value, str):
            got = f"{value!r:.60}" if name is not None else f"only {self.named}"
            advice = (
                f"correct it, or name the field that holds it with --columns {ours}=FIELD"
                if name is None
                else "correct it or remove the row"
            )
            raise DataError(f"{self.where} must have text under {name or ours!r}, got {got}; {advice}.")
        return check_characters(value, where=f"{self.where}, {name},")

    @property
    def named(self) -> str:
        """The names of all fields as the file spells them."""
        return ", ".join(map(repr, self._as_written.values())) or "no field"

    def unused(self, read: Container[str]) -> list[str]:
        """Names of fields that were not read and hold something other than the texts in `read`."""
        return [
            self._as_written[name]
            for name, value in self._values.items()
            if name not in self._used and has_value(value) and not (isinstance(value, str) and value in read)
        ]

    def _name(self, ours: str) -> str | None:
        """The row's name of the field; a name with a null value is used only if no other name has a value."""
        names = [name for name in NAMES[ours] if name in self._values and self._used.get(name, ours) == ours]
        return next((name for name in names if self._values[name] is not None), names[0] if names else None)

    def _refuse_by_name(self) -> None:
        """Reject rows in known formats that cannot be trained on."""
        names = self._values.keys()
        if names & TREE_FIELDS:
            raise DataError(
                f"{self.where} belongs to a tree of messages (OpenAssistant's form), got the fields {self.named}; "
                "write each path through the tree as one row with a list of 'messages' first."
            )
        media = [name for name in sorted(names & MEDIA_FIELDS) if self._values[name]]
        if media:
            raise DataError(
                f"{self.where} must be text only, since these models read nothing else, got a field {media[0]!r}; "
                "remove such rows."
            )
        if isinstance(self._values.get("label"), bool) and not names & {"chosen", "rejected"}:
            raise DataError(
                f"{self.where} is one answer labelled good or bad (KTO's form), got label={self._values['label']}; "
                "preference tuning needs 'chosen' and 'rejected'; for instruction tuning keep the rows labelled true, "
                "without 'label'."
            )


logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Note:
    n: int
    first: str  # place of the first such row
    last: str


@dataclass(slots=True)
class RowNotes:
    """Count rows of which a part is dropped, joined or converted, and list unused fields.

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
        """Count the row at `where`, once for each `what`: a clause that continues "In 3 rows"."""
        note = self._notes.setdefault(what, _Note(0, where, ""))
        if note.last != where:
            note.n += 1
            note.last = where

    def leave_unused(self, names: Iterable[str]) -> None:
        """Record fields that have a value and are not read."""
        self._unused |= dict.fromkeys(names)

    def sentences(self) -> list[str]:
        """Return one sentence for each kind of note, in order of addition; unused fields come last."""
        found = []
        for what, note in self._notes.items():
            rows, the_first = ("row", "") if note.n == 1 else ("rows", "the first: ")
            found.append(f"In {note.n:,} {rows} {what} ({the_first}{note.first}).")
        if self._unused:
            found.append(f"Fields not used: {', '.join(self._unused)}.")
        return found

    def nothing_left(self, path: Path, *, n_rows: int, kind: str) -> str:
        """The error message for a file without a usable row."""
        why = "".join(f" {sentence}" for sentence in self.sentences())
        return f"{path} must hold {kind}, got {n_rows:,} rows of which none can be used; check the file.{why}"

    def log(self) -> None:
        """Log each sentence as a warning."""
        for sentence in self.sentences():
            logger.warning("%s", sentence)
