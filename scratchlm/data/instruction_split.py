"""Split instruction entries into training, validation and test; find entries with the same question."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import regex

from scratchlm.core.errors import DataError
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.label_split import hash_place, share_of_digest
from scratchlm.data.near_duplicates import group_near_duplicates

FRACTIONS = (0.85, 0.1)  # for training and test, as in the book; the rest is for validation
HELD_OUT_VAL = 0.05  # for validation, where the test entries are marked
_NUMBER = regex.compile(r"\d+")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class EntrySplit(Generic[_T]):
    """The entries, or pairs of answers, for training, validation and test."""

    train: list[_T]
    val: list[_T]
    test: list[_T]


def split_in_order(items: Sequence[_T]) -> EntrySplit[_T]:
    """Split items in order: first training, then test, then validation.

    Source: the book's split, chapter 7: 1,100 entries give 935, 110 and 55.
    Raises: DataError when a part would be empty.
    """
    train_end = int(len(items) * FRACTIONS[0])
    test_end = train_end + int(len(items) * FRACTIONS[1])
    return _checked_split(items[:train_end], items[test_end:], items[train_end:test_end])


def split_held_out(
    entries: Sequence[Instruction], held_out: Sequence[bool], *, seed: int = 123
) -> EntrySplit[Instruction]:
    """Use the entries marked as held out for test; a hash chooses 5 % of the others for validation.

    Equal entries share a side of train and validation, and adding entries does not move the others.
    Raises: DataError when a part would be empty.
    """
    if len(entries) != len(held_out):
        raise DataError(f"each entry needs one mark, got {len(entries)} entries and {len(held_out)} marks.")
    train: list[Instruction] = []
    val: list[Instruction] = []
    test: list[Instruction] = []
    for entry, is_held_out in zip(entries, held_out):
        digest = hashlib.sha256(json.dumps([seed, *entry.key]).encode()).digest()
        (test if is_held_out else val if share_of_digest(digest) < HELD_OUT_VAL else train).append(entry)
    return _checked_split(train, val, test)


def split_leak_free(entries: Sequence[Instruction], *, seed: int = 123) -> EntrySplit[Instruction]:
    """Assign entries with nearly the same question to one part, by a hash of their group and the seed.

    The parts hold about 85, 10 and 5 %, not exactly, so that a group stays in its part when entries are
    reordered or added.
    Raises: DataError when a part would be empty.
    """
    parts: dict[str, list[Instruction]] = {"train": [], "test": [], "val": []}
    train_end, test_end = FRACTIONS[0], sum(FRACTIONS)
    for entry, group in zip(entries, question_groups(entries)):
        place = hash_place(group, seed)
        parts["train" if place < train_end else "test" if place < test_end else "val"].append(entry)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise DataError(
            f"a leak-free split needs entries in each part, got none for {empty[0]} out of {len(entries)}; give more "
            "data, another seed, or the book's split (--split book)."
        )
    return EntrySplit(**parts)


def question_groups(entries: Sequence[Instruction]) -> list[str]:
    """The name of each entry's group; entries whose questions differ little, or only in numbers, share it."""
    return group_near_duplicates([_question(entry) for entry in entries])


def duplicate_numbers(entries: Sequence[Instruction]) -> list[int]:
    """Positions of entries with nearly the same question, including its numbers, as an earlier entry.

    Entries that differ only in a number are different exercises and not duplicates.
    """
    seen: set[tuple[str, ...]] = set()
    duplicates = []
    for number, (entry, group) in enumerate(zip(entries, question_groups(entries))):
        key = (group, *_NUMBER.findall(_question(entry)))
        if key in seen:
            duplicates.append(number)
        seen.add(key)
    return duplicates


def drop_duplicates(entries: Sequence[Instruction]) -> list[Instruction]:
    """The entries without duplicates of earlier ones."""
    duplicates = set(duplicate_numbers(entries))
    return [entry for number, entry in enumerate(entries) if number not in duplicates]


def count_leaks(split: EntrySplit[Instruction]) -> int:
    """Count test entries with nearly the same question as a training entry: they may test memory."""
    groups = question_groups([*split.train, *split.test])
    known = set(groups[: len(split.train)])
    return sum(group in known for group in groups[len(split.train) :])


def _checked_split(train: Sequence[_T], val: Sequence[_T], test: Sequence[_T]) -> EntrySplit[_T]:
    if not (train and val and test):
        raise DataError(
            f"each part of a split needs entries, got {len(train)} for training, {len(val)} for validation and "
            f"{len(test)} for test out of {len(train) + len(val) + len(test)}; give more data or other fractions."
        )
    return EntrySplit(train=list(train), val=list(val), test=list(test))


def _question(entry: Instruction) -> str:
    """The question, including earlier turns, but without the system prompt, which many entries share."""
    earlier = (text for exchange in entry.history for text in exchange)
    return "\n".join([*earlier, entry.instruction, entry.input])
