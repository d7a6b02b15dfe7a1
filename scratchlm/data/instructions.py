"""Instruction data: reading Alpaca files, and who trains and who tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import check_characters
from scratchlm.data.conversations import Exchange, is_conversation, read_conversation
from scratchlm.data.json_entries import read_json_entries

DOLLY_NAMES = (("input", "context"), ("output", "response"))  # ours, and those of databricks-dolly-15k


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


def read_instructions(path: str | Path) -> list[Instruction]:
    """The entries of a file of instructions: a JSON list, or JSONL by the suffix .jsonl.

    Each entry has the texts `instruction` and `output`, and optionally `input`, `system` and `skill` (Alpaca); other
    keys are left alone. Dolly's names, `context` for input and `response` for output, do as well. An output may be
    empty (the right answer is then to say nothing), an instruction may not.
    Or it is a conversation: `messages` of role and content, or ShareGPT's `conversations` of from and value.
    Raises: DataError naming the file and the entry's number (its line in JSONL), both from 1.
    """
    path = Path(path)
    entries = [_entry(value, where) for value, where in read_json_entries(path, parse_line=_parse_line)]
    if not entries:
        raise DataError(f"{path} should hold instruction entries, found none; check the file.")
    return entries


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
        raise DataError(f"each entry needs one mark, found {len(entries)} entries and {len(held_out)} marks.")
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
            f"a split needs entries in each part, found {len(train)} for training, {len(val)} for validation "
            f"and {len(test)} for test out of {n}; give more data or other fractions."
        )
    return InstructionSplit(train=list(train), val=list(val), test=list(test))


def _place(entry: Instruction, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the entry's texts and the seed."""
    key = json.dumps([seed, *entry.key])
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53


def _parse_line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as cause:
        raise DataError(f"{where} must be one JSON object, found: {cause}; repair it.") from cause


def _entry(value: Any, where: str) -> Instruction:
    if not isinstance(value, dict):
        raise DataError(
            f"{where} must be an object with instruction and output, found {value!r:.60}; repair it."
        )
    if is_conversation(value) and "instruction" not in value:
        system, exchanges = read_conversation(value, where=where)
        last, skill = exchanges[-1], value.get("skill", "")
        return Instruction(
            instruction=last.request, input="", output=last.answer, skill=skill if isinstance(skill, str) else "",
            system=system, history=exchanges[:-1],
        )  # fmt: skip
    value = value | {
        ours: value[dolly] for ours, dolly in DOLLY_NAMES if dolly in value and ours not in value
    }
    texts: dict[str, str] = {}
    for key in ("instruction", "input", "output", "system", "skill"):
        text = value.get(key)
        is_optional = key in ("input", "system", "skill")
        if text is None and is_optional:
            text = ""
        if not isinstance(text, str) or (key == "instruction" and not text.strip()):
            found = f"{text!r:.60}" if key in value else f"only {', '.join(map(repr, value)) or 'no key'}"
            raise DataError(
                f"{where} must have text under {key!r}, found {found}; fill it or remove the entry."
            )
        texts[key] = check_characters(text, where=f"{where}, {key},")
    return Instruction(
        instruction=texts["instruction"],
        input=texts["input"],
        output=texts["output"],
        system=texts["system"],
        skill=texts["skill"],
    )
