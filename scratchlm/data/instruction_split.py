"""Instruction entries that say the same: found, counted, dropped, and kept on one side of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import regex

from scratchlm.core.errors import DataError
from scratchlm.data.instructions import Instruction, InstructionSplit
from scratchlm.data.near_duplicates import group_near_duplicates

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
