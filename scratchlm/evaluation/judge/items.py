"""Read the items to be judged, tasks with a reference and an answer, from a file of answers."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import check_characters
from scratchlm.data.row_fields import RowNotes
from scratchlm.data.row_files import read_rows
from scratchlm.evaluation.judge.parse_reply import without_thoughts

ANSWER_KEY = "model_response"  # the book's name
# Answers of a run's fine-tuned assistant.
FILES_IN_A_RUN = ("answers.jsonl", "instruct/answers.jsonl", "prefer/answers.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A task, its reference answer, and the answer to judge; `other` is one to compare it with."""

    instruction: str
    input: str
    reference: str
    answer: str
    other: str | None = None

    @property
    def task(self) -> str:
        """Instruction and input as one text."""
        return f"{self.instruction}\n\n{self.input}" if self.input.strip() else self.instruction

    @property
    def id(self) -> str:
        """A hash of task and reference, independent of the answer."""
        texts = json.dumps([self.instruction, self.input, self.reference])
        return hashlib.sha256(texts.encode()).hexdigest()[:16]

    @property
    def is_empty(self) -> bool:
        """Whether the answer, or the one it is compared with, is empty."""
        return not self.answer.strip() or (self.other is not None and not self.other.strip())


def read_items(path: str | Path, *, answer_key: str = ANSWER_KEY, other_key: str | None = None) -> list[Item]:
    """Read a file of answers, in any format that `read_rows` reads, or the one of a run folder.

    Each entry has the texts `instruction` and `output`, optionally `input`, and the answer under `answer_key`. An
    answer may be empty or null (both mean empty), but not missing. A leading `<think>...</think>` is removed
    from answer and reference; an answer that ends within it is empty.
    Raises: DataError naming the file and the entry's number (its line in JSONL), both from 1.
    """
    path = _file_of(Path(path))
    notes = RowNotes()
    items = [
        _item(value, where, answer_key=answer_key, other_key=other_key, notes=notes)
        for value, where in read_rows(path)
    ]
    if not items:
        raise DataError(f"{path} must hold answers, got none; check the file.")
    notes.log()
    return items


def with_others(items: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    """Set `other` of each item to the answer in a second file, which must have the same tasks in the same order.

    Raises: DataError where the files differ.
    """
    if len(items) != len(others):
        raise DataError(
            f"both files must answer the same tasks, got {len(items)} and {len(others)} entries; "
            "answer the same test entries with both models."
        )
    for number, (item, other) in enumerate(zip(items, others), start=1):
        if item.id != other.id:
            raise DataError(
                f"both files must answer the same tasks in the same order, got {item.instruction!r:.60} and "
                f"{other.instruction!r:.60} as entry {number}; put them in the same order."
            )
    return [replace(item, other=other.answer) for item, other in zip(items, others)]


def fingerprint(items: Sequence[Item]) -> str:
    """Hex sha256 of all texts in their order; changes with any answer or reference."""
    texts = [[item.instruction, item.input, item.reference, item.answer, item.other] for item in items]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _file_of(path: Path) -> Path:
    """The file itself, or the file of answers of a run folder."""
    if not path.is_dir():
        return path
    for name in FILES_IN_A_RUN:
        if (path / name).is_file():
            return path / name
    raise ConfigError(
        f"a folder of answers must be a run with {' or '.join(FILES_IN_A_RUN)}, and {path} has none of them; "
        "name the file, or fine-tune an assistant first."
    )


def _item(
    value: Mapping[str, Any], where: str, *, answer_key: str, other_key: str | None, notes: RowNotes
) -> Item:
    instruction = _text(value, "instruction", where)
    if not instruction.strip():
        raise DataError(f"{where} must have text under 'instruction', got none; fill it or remove the entry.")
    return Item(
        instruction=instruction,
        input=_text(value, "input", where) if value.get("input") is not None else "",
        reference=without_thoughts(_text(value, "output", where)),
        answer=_answer(value, answer_key, where, notes),
        other=None if other_key is None else _answer(value, other_key, where, notes),
    )


def _answer(value: Mapping[str, Any], key: str, where: str, notes: RowNotes) -> str:
    if key not in value:
        known = ", ".join(map(repr, value)) or "no key"
        raise DataError(
            f"{where} must have an answer under {key!r}, got only {known}; name the right one with --answer-key."
        )
    text = "" if value[key] is None else _text(value, key, where)
    answer = without_thoughts(text)
    if answer != text:
        kept = "begins with a <think> block, which is not judged"
        lost = "ends within its <think> block and counts as empty"
        notes.add(f"the answer {kept if answer else lost}", where=where)
    return answer


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        found = f"{text!r:.60}" if key in value else f"only {', '.join(map(repr, value)) or 'no key'}"
        raise DataError(f"{where} must have text under {key!r}, got {found}; fill it or remove the entry.")
    return check_characters(text, where=f"{where}, {key},")
