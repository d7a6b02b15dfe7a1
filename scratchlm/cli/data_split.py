"""`scratchlm data split`: split labelled texts into files for training, validation and test."""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from scratchlm.cli.parsing import Common, command_line, required
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import new_folder, write_text
from scratchlm.data.label_split import class_counts, leak_free_split, split_figures
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.data.row_files import RowSettings
from scratchlm.recipes.inputs import read_messages

SIDES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataSplit(Common):
    """Write the leak-free split of labelled texts as train.jsonl, val.jsonl and test.jsonl.

    This is the split of `finetune classify`: near-duplicates stay in one part, and validation and test have
    one text of each group. So you can pre-train on train.jsonl, or use it with another program, and the test
    texts remain unseen. Each line has `text` and `label`.

    Example: scratchlm data split --data SMSSpamCollection --out sms
    """

    data: tuple[str, ...] = ()  # files, folders or globs of labelled texts, or a known name
    rows: Annotated[RowSettings, tyro.conf.arg(name="")] = field(default_factory=RowSettings)
    out: Path | None = None  # the folder to write
    balanced_test: bool = False  # equal numbers of validation and test texts for each class
    split_seed: int = 123  # seed of the split, as in finetune classify


def _check_apart(data: Sequence[str], out: Path) -> None:
    """Reject an output folder inside or around the data, where it could replace or be read as the data."""
    place = out.resolve()
    for name in data:
        for found in map(Path, glob.glob(name, recursive=True) or [name]):  # noqa: PTH207
            path = found.resolve()
            if found.exists() and (path == place or place in path.parents or path in place.parents):
                raise ConfigError(
                    f"--out must be a folder apart from the data, got {out} for {found}; choose another --out."
                )


@command_line(DataSplit)
def main(command: DataSplit, console: Console) -> dict[str, Any]:  # noqa: ARG001
    """Split the texts, write the files and print the counts; returns the `--json` keys."""
    data, out = required(command, "data split needs labelled texts and an output folder", "data", "out")
    inside = out.iterdir() if out.is_dir() else [out] if out.exists() else []
    others = sorted(path.name for path in inside)
    if set(others) - {f"{side}.jsonl" for side in SIDES}:
        raise DataError(
            f"{out} must be new or an earlier split, but has {', '.join(others)!s:.200}; choose another --out."
        )
    _check_apart(data, out)
    rows = read_messages(data, command.rows)
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    if len(set(labels)) < 2:
        raise DataError(
            f"a split for classifiers needs at least 2 classes, got only {labels[0]!r}; add others."
        )
    groups = group_near_duplicates(texts)
    split = leak_free_split(texts, labels, groups, seed=command.split_seed, is_balanced=command.balanced_test)
    figures: dict[str, Any] = {
        "out": str(out),
        "rows": len(rows),
        "groups": len(set(groups)),
        "duplicates": len(rows) - len(set(groups)),
        **split_figures(split),
    }
    with new_folder(out) as partial:
        for side in SIDES:
            indices = getattr(split, side)
            lines = (json.dumps({"text": texts[i], "label": labels[i]}, ensure_ascii=False) for i in indices)
            write_text(partial / f"{side}.jsonl", "".join(f"{line}\n" for line in lines))
            figures[side] = class_counts(labels, indices)
    print(f"{len(rows):,} rows in {figures['groups']:,} groups of near-duplicates: {figures['split']}")
    for side in SIDES:
        counts = ", ".join(f"{n:,} {name}" for name, n in figures[side].items())
        print(f"{out / side}.jsonl: {counts}")
    return figures
