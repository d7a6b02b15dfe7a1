"""Instruction entries that say the same: found, counted, dropped, and kept on one side of a split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.near_duplicates import group_near_duplicates


@dataclass(frozen=True, kw_only=True, slots=True)
class InstructionSplit:
    """Which entries train, validate and test."""

    train: list[Instruction]
    val: list[Instruction]
    test: list[Instruction]


FRACTIONS = (0.85, 0.1)  # of training and test, as in the book; the rest validates
_NUMBER = regex.compile(r"\d+")


def question_groups(entries: Sequence[Instruction]) -> list[str]:
    """A group's name for every entry: those that ask nearly the same share it, whatever the numbers in them are."""
    return group_near_duplicates([_question(entry) for entry in entries])


def duplicate_numbers(entries: Sequence[Instruction]) -> list[int]:
    """The places of entries that an earlier one makes superfluous: they ask nearly the same, with the same
    numbers, whatever is answered.

    Entries that differ in a number only are different exercises, and stay.
    """
    seen: set[tuple[str, ...]] = set()
    superfluous = []
    for place, (entry, group) in enumerate(zip(entries, question_groups(entries))):
        key = (group, *_NUMBER.findall(_question(entry)))
        if key in seen:
            superfluous.append(place)
        seen.add(key)
    return superfluous


def drop_duplicates(entries: Sequence[Instruction]) -> list[Instruction]:
    """The entries without those that an earlier one makes superfluous."""
    superfluous = set(duplicate_numbers(entries))
    return [entry for place, entry in enumerate(entries) if place not in superfluous]


def count_leaks(split: InstructionSplit) -> int:
    """How many test entries ask nearly what a training entry asks: there a test may measure memory."""
    groups = question_groups([*split.train, *split.test])
    known = set(groups[: len(split.train)])
    return sum(group in known for group in groups[len(split.train) :])


def split_leak_free(entries: Sequence[Instruction], *, seed: int = 123) -> InstructionSplit:
    """Send entries that ask nearly the same to one part, chosen by a hash of their group and the seed.

    The parts' sizes are near 85, 10 and 5 %, not equal to them: that is the price for groups that stay where they
    are, whatever the order of the file and whatever is added to it.
    Raises: DataError when a part would be empty.
    """
    parts: dict[str, list[Instruction]] = {"train": [], "test": [], "val": []}
    train_end, test_end = FRACTIONS[0], sum(FRACTIONS)
    for entry, group in zip(entries, question_groups(entries)):
        place = _place_of(group, seed)
        parts["train" if place < train_end else "test" if place < test_end else "val"].append(entry)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise DataError(
            f"a leak-free split needs entries in each part, got none for {empty[0]} out of {len(entries)}; give more "
            "data, another seed, or the book's split (--split book)."
        )
    return InstructionSplit(**parts)


def _question(entry: Instruction) -> str:
    """All that is asked: the earlier turns too, but no system prompt, which many entries share."""
    earlier = (text for exchange in entry.history for text in exchange)
    return "\n".join([*earlier, entry.instruction, entry.input])


def _place_of(group: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but group and seed."""
    digest = hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


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
