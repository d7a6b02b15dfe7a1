"""Read the data of each stage: messages to classify, instruction entries, pairs of answers."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scratchlm.core.errors import ConfigError
from scratchlm.data.augmentation import augment
from scratchlm.data.classification_rows import LabelledText, read_labelled
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.instruction_split import (
    EntrySplit,
    drop_duplicates,
    duplicate_numbers,
    split_held_out,
    split_in_order,
    split_leak_free,
)
from scratchlm.data.preference_rows import Preference, read_preferences
from scratchlm.data.prompt_templates import template
from scratchlm.data.row_fields import RowNotes
from scratchlm.data.row_files import ANSWERED, LABELLED, RowSettings
from scratchlm.data.samples.instructions import sample_instructions
from scratchlm.data.samples.messages import sample_messages
from scratchlm.data.shards import token_folder
from scratchlm.data.sources import find_sources
from scratchlm.finetuning.instruction import InstructSettings
from scratchlm.recipes.recipe import SAMPLES, Recipe
from scratchlm.training.settings import resolve_data


def check_inputs(recipe: Recipe) -> None:
    """Read the data of all stages before the first one starts, so that an error in it is found before pre-training."""
    data = recipe.data
    if "pretrain" in recipe.stages and SAMPLES not in data.text:
        for names in data.text if data.text_weights else [data.text]:
            paths = resolve_data([names] if isinstance(names, str) else names)
            if token_folder(paths) is None:
                find_sources(paths)
    if "classify" in recipe.stages:
        read_messages(data.messages, data)
    if "instruct" in recipe.stages:
        read_entries(data.instructions, recipe.instruct, data)
    if "prefer" in recipe.stages:
        read_pairs(data.preferences, data)


def read_messages(names: Sequence[str], rows: RowSettings | None = None) -> list[LabelledText]:
    """Labelled texts from files, or the built-in sample."""
    if tuple(names) == (SAMPLES,):
        return sample_messages()
    paths = resolve_data(names, kind="sms_spam_collection")
    return read_labelled(paths, (rows or RowSettings()).only(*LABELLED))


@dataclass(frozen=True, kw_only=True)
class EntrySet:
    """A split of instruction entries, and the changes made to them."""

    split: EntrySplit[Instruction]  # as in the files
    kinds: list[str]  # of each test entry; "" for entries from files
    n_dropped: int  # near-duplicates left out
    notes: tuple[str, ...] = ()  # sentences on what was changed or left out in the rows

    def for_training(self, settings: InstructSettings) -> EntrySplit[Instruction]:
        """The split with the augmented copies, which are for training only, and the settings' system prompt."""
        train = augment(self.split.train, settings.augment, seed=settings.seed)
        parts = (train, self.split.val, self.split.test)
        train, val, test = ([_with_system(entry, settings.system) for entry in part] for part in parts)
        return EntrySplit(train=train, val=val, test=test)

    def count_duplicates(self) -> int:
        """The number of entries that nearly repeat an earlier one, dropped ones included."""
        left = [*self.split.train, *self.split.val, *self.split.test]
        return self.n_dropped or len(duplicate_numbers(left))


def read_entries(
    names: Sequence[str], settings: InstructSettings, rows: RowSettings | None = None
) -> EntrySet:
    """Instruction entries from files, split as the settings say, or the built-in sample with its own test side.

    Raises: ConfigError for another split of the sample; the readers' errors.
    """
    if tuple(names) == (SAMPLES,):
        return _sample_entries(settings)
    notes, rows = RowNotes(), (rows or RowSettings()).only(*ANSWERED)
    paths = resolve_data(names, kind="instruction")
    entries = [entry for path in paths for entry in read_instructions(path, rows, notes=notes)]
    n_read = len(entries)
    if settings.drop_duplicates:
        entries = drop_duplicates(entries)
    is_book = settings.split == "book"
    split = split_in_order(entries) if is_book else split_leak_free(entries, seed=settings.seed)
    return EntrySet(
        split=split,
        kinds=[""] * len(split.test),
        n_dropped=n_read - len(entries),
        notes=tuple(notes.sentences()),
    )


def read_pairs(
    names: Sequence[str], rows: RowSettings | None = None
) -> tuple[EntrySplit[Preference], int, list[str]]:
    """Pairs of answers from files, split in the book's way.

    Returns the split, the number of rows left out because both answers are equal, and sentences on what was changed
    in the rows.
    """
    rows = (rows or RowSettings()).only(*ANSWERED)
    notes = RowNotes()
    found = [read_preferences(path, rows, notes=notes) for path in resolve_data(names, kind="preference")]
    pairs = [pair for entries in found for pair in entries.pairs]
    return split_in_order(pairs), sum(entries.n_equal for entries in found), notes.sentences()


def fine_tuning_texts(recipe: Recipe) -> Iterator[str]:
    """The training texts of the instruction stage, on which a new tokenizer is trained too."""
    if "instruct" in recipe.stages:
        chosen = template(recipe.instruct.template)
        entries = read_entries(recipe.data.instructions, recipe.instruct, recipe.data)
        yield from (chosen.full(entry) for entry in entries.for_training(recipe.instruct).train)


def _sample_entries(settings: InstructSettings) -> EntrySet:
    if settings.split != "book":
        raise ConfigError(
            f"the sample entries have a test side of their own, got split={settings.split!r}; leave it out."
        )
    sample = sample_instructions()
    train = drop_duplicates(sample.train) if settings.drop_duplicates else list(sample.train)
    held_out = [False] * len(train) + [True] * len(sample.test)
    split = split_held_out([*train, *sample.test], held_out)
    return EntrySet(split=split, kinds=list(sample.held_out), n_dropped=len(sample.train) - len(train))


def _with_system(entry: Instruction, system: str) -> Instruction:
    return entry if entry.system or not system else dataclasses.replace(entry, system=system)
