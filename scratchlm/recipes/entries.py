"""The entries an assistant learns from and is tested on: read, cleaned, split and multiplied as the settings say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from scratchlm.core.errors import ConfigError
from scratchlm.data.augmentation import augment
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.instruction_split import (
    InstructionSplit,
    count_leaks,
    drop_duplicates,
    duplicate_numbers,
    split_held_out,
    split_instructions,
    split_leak_free,
)
from scratchlm.data.row_fields import RowNotes
from scratchlm.data.row_files import ANSWERED, RowSettings
from scratchlm.data.samples.instructions import sample_instructions
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.recipe import SAMPLES
from scratchlm.training.settings import resolve_texts


@dataclass(frozen=True, kw_only=True)
class EntrySet:
    """A split of entries, and what was done to them."""

    split: InstructionSplit  # as it is in the files
    kinds: list[str]  # of each test entry, "" for those of files
    n_dropped: int  # near-duplicates left out; 0 when nobody asked for that
    notes: tuple[str, ...] = ()  # what of the rows was not taken as it stands, in sentences

    def for_training(self, settings: InstructSettings) -> InstructionSplit:
        """The split with the copies that are for training only, and the system prompt of the settings."""
        train = augment(self.split.train, settings.augment, seed=settings.seed)
        parts = (train, self.split.val, self.split.test)
        train, val, test = ([_with_system(entry, settings.system) for entry in part] for part in parts)
        return InstructionSplit(train=train, val=val, test=test)

    def count_duplicates(self) -> int:
        """How many entries nearly repeat an earlier one, dropped ones included."""
        left = [*self.split.train, *self.split.val, *self.split.test]
        return self.n_dropped or len(duplicate_numbers(left))

    def count_leaks(self) -> int:
        """How many test entries ask nearly what a training entry asks."""
        return count_leaks(self.split)


def read_entries(
    names: Sequence[str], settings: InstructSettings, rows: RowSettings | None = None
) -> EntrySet:
    """Instruction entries of files, or of the built-in sample, split for training.

    The sample says itself what is held out; files are split as the settings say.
    Raises: ConfigError for another split of the sample; the readers' errors.
    """
    if tuple(names) == (SAMPLES,):
        return _sample_entries(settings)
    notes = RowNotes()
    entries = [
        entry
        for name in resolve_texts(names, kind="instruction")
        for entry in read_instructions(name, (rows or RowSettings()).only(*ANSWERED), notes=notes)
    ]
    n_read = len(entries)
    if settings.drop_duplicates:
        entries = drop_duplicates(entries)
    is_book = settings.split == "book"
    split = split_instructions(entries) if is_book else split_leak_free(entries, seed=settings.seed)
    return EntrySet(
        split=split,
        kinds=[""] * len(split.test),
        n_dropped=n_read - len(entries),
        notes=tuple(notes.sentences()),
    )


def _sample_entries(settings: InstructSettings) -> EntrySet:
    if settings.split != "book":
        raise ConfigError(
            f"the sample entries say themselves which are held out, got split={settings.split!r}; leave it out."
        )
    sample = sample_instructions()
    train = drop_duplicates(sample.train) if settings.drop_duplicates else list(sample.train)
    held_out = [False] * len(train) + [True] * len(sample.test)
    split = split_held_out([*train, *sample.test], held_out)
    return EntrySet(split=split, kinds=list(sample.held_out), n_dropped=len(sample.train) - len(train))


def _with_system(entry: Instruction, system: str) -> Instruction:
    return entry if entry.system or not system else dataclasses.replace(entry, system=system)
