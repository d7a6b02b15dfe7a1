"""Audit a data set before training: read every row once, and collect statistics and findings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scratchlm.core.config import check_at_least
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.audit.duplicates import Duplicates
from scratchlm.data.audit.faults import TextFaults
from scratchlm.data.audit.findings import findings
from scratchlm.data.audit.lengths import Lengths
from scratchlm.data.audit.reading import (
    DataKind,
    DataRow,
    Reading,
    checked_kind,
    detect_kind,
    stream_figures,
    usable_rows,
)
from scratchlm.data.audit.token_loss import loss_figures
from scratchlm.data.audit.token_shards import shard_figures
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.label_split import leak_free_split, split_figures
from scratchlm.data.prompt_templates import PromptTemplate, template
from scratchlm.data.row_files import RowSettings
from scratchlm.data.shards import token_folder

MAX_COMPARED = 20_000  # texts among which near-duplicates are searched
_PARTS: dict[DataKind, tuple[str, ...]] = {  # fields whose lengths are listed
    "instruction": ("instruction", "input", "output"),
    "preference": ("instruction", "input", "chosen", "rejected"),
}


def inspect_data(
    paths: Sequence[str | Path],
    *,
    kind: str = "auto",
    tokenizer: Tokenizer | None = None,
    context_length: int | None = None,
    template_name: str = "alpaca",
    settings: RowSettings | None = None,
    document_separator: str = "",
    most_compared: int = MAX_COMPARED,
    n_shown: int = 3,
) -> dict[str, Any]:
    """Compute statistics and findings about files as JSON values; each path is one split.

    The statistics cover all splits together, and splits are checked for overlaps. Without a tokenizer,
    lengths are in words, and no tokens are shown.
    n_shown: number of instruction rows to show token by token, marking the tokens that carry loss.
    Units: lengths in `length_unit`, tokens or words
    Raises: DataError for a path that cannot be read, has no usable row, or is of another kind than the first;
        ConfigError for wrong settings.
    """
    if not paths:
        raise ConfigError("inspect needs at least one file or folder, got none; name one.")
    check_at_least(1, context_length=context_length)
    check_at_least(0, most_compared=most_compared, n_shown=n_shown)
    prompts = template(template_name)
    settings = settings or RowSettings()
    found = _kind_of_all(paths, kind, settings)
    if found == "shards":
        figures = {"kind": found, **_one_token_folder(paths, context_length)}
    else:
        audit = _Audit([str(path) for path in paths], found, tokenizer, most_compared=most_compared)
        for split, path in enumerate(paths):
            audit.read(split, path, settings, document_separator=document_separator)
        figures = audit.figures(prompts, context_length=context_length, n_shown=n_shown)
    return figures | {"findings": findings(figures)}


def _kind_of_all(paths: Sequence[str | Path], kind: str, settings: RowSettings) -> DataKind:
    if kind != "auto":
        return checked_kind(kind)
    kinds = [detect_kind(path, settings) for path in paths]
    for path, other in zip(paths, kinds):
        if other != kinds[0]:
            raise DataError(
                f"all splits must be of one kind, got {kinds[0]} in {paths[0]} and {other} in {path}; inspect them one "
                "by one, or name the kind with --kind."
            )
    return kinds[0]


def _one_token_folder(paths: Sequence[str | Path], context_length: int | None) -> dict[str, Any]:
    folders = {token_folder(path) for path in paths}
    folder = folders.pop()
    if folders or folder is None:
        raise DataError(
            f"token shards are inspected one folder at a time, got {', '.join(map(str, paths))}; name one folder that "
            "holds header.json."
        )
    return shard_figures(folder, context_length=context_length)


class _Audit:
    """The collectors of one audit, and the figures of each split."""

    def __init__(
        self, names: list[str], kind: DataKind, tokenizer: Tokenizer | None, *, most_compared: int
    ) -> None:
        self.kind = kind
        self.tokenizer = tokenizer
        self.lengths, self.parts = Lengths(), {name: Lengths() for name in _PARTS.get(kind, ())}
        self.duplicates = Duplicates(names, most_compared=most_compared)
        self.faults = TextFaults(tokenizer.special_tokens if tokenizer is not None else ())
        self.labels: Counter[str] = Counter()
        self.splits: list[dict[str, Any]] = []
        self.entries: list[Instruction] = []
        self.n_characters = 0
        self.has_paragraphs = False
        self.n_longer_chosen = self.n_equal_pairs = 0
        self.unusable = Reading()

    def read(self, split: int, path: str | Path, settings: RowSettings, *, document_separator: str) -> None:
        """Pass every row of one split to every collector."""
        reading = Reading()
        labels: Counter[str] = Counter()
        n_rows = 0
        for row in usable_rows(
            path, self.kind, reading, settings=settings, document_separator=document_separator
        ):
            n_rows += 1
            self._add(row, split)
            if "label" in row.fields:
                labels[row.fields["label"]] += 1
        if self.kind == "text":
            as_training = stream_figures(
                path, self.tokenizer, settings, document_separator=document_separator
            )
        else:
            as_training = {"refused": reading.refusal}
        if n_rows == 0:
            why = as_training["refused"] or next(iter(reading.complaints), "")
            raise DataError(
                f"{path} must hold rows of {self.kind}, got none that can be used; name another --kind, or repair it"
                f"{': ' if why else '.'}{why}"
            )
        self.labels += labels
        self.unusable.n_unusable += reading.n_unusable
        self.unusable.complaints += reading.complaints
        self.splits.append(
            {
                "path": str(path),
                "rows": n_rows,
                "unusable": reading.n_unusable,
                "bytes": reading.faults.figures(),
                "classes": dict(labels.most_common()) if labels else None,
                "notes": reading.notes.sentences(),
                **as_training,
            }
        )
        self.has_paragraphs |= not document_separator

    def figures(self, prompts: PromptTemplate, *, context_length: int | None, n_shown: int) -> dict[str, Any]:
        """All figures, with the keys of `--json`."""
        figures: dict[str, Any] = {
            "kind": self.kind,
            "rows": sum(split["rows"] for split in self.splits),
            "unit": _unit(self.kind, self.splits, has_paragraphs=self.has_paragraphs),
            "splits": self.splits,
            "unusable": {"n": self.unusable.n_unusable, "complaints": self.unusable.complaints},
            "characters": self.n_characters,
            "tokenizer": None,
            "length_unit": "words",
        }
        if self.tokenizer is not None:
            known = {"vocab_size": self.tokenizer.vocab_size, "fingerprint": self.tokenizer.fingerprint}
            figures |= {"tokenizer": known, "length_unit": "tokens"}
        if self.kind == "instruction":
            figures["loss"] = self._loss(prompts, context_length, n_shown)
        figures["lengths"] = self.lengths.summary()
        figures["part_lengths"] = {name: part.summary() for name, part in self.parts.items()}
        figures["truncation"] = None if context_length is None else self.lengths.truncation(context_length)
        if self.kind == "text" and context_length is not None:
            figures["windows"] = _n_windows(self.splits, context_length)
        if self.kind == "classification":
            n_labels = self.labels.total()
            classes = [
                {"label": label, "n": n, "share": n / n_labels} for label, n in self.labels.most_common()
            ]
            figures["classes"] = classes
            figures["majority"] = classes[0]["share"]  # the accuracy of always predicting the largest class
        if self.kind == "preference":
            figures["pairs"] = {"chosen_longer": self.n_longer_chosen, "equal": self.n_equal_pairs}
        figures |= self.duplicates.figures() | self.faults.figures()
        is_whole = len(self.duplicates.compared) == figures["rows"]
        if self.kind == "classification" and len(self.splits) == 1 and is_whole:
            figures["split"] = self._split()
        return figures

    def _split(self) -> dict[str, Any]:
        """How `finetune classify` would split the rows, or why it cannot."""
        texts, labels, groups = zip(*self.duplicates.compared)
        try:
            split = leak_free_split(texts, labels, groups)
        except DataError as error:
            return {"refused": str(error)}
        return {"refused": None, **split_figures(split)}

    def _add(self, row: DataRow, split: int) -> None:
        text = row.text
        self.n_characters += len(text)
        self.faults.add(text, row.where)
        self.duplicates.add(split, text, key=row.key, label=row.fields.get("label", ""))
        sizes = {name: self._length(row.fields.get(name, "")) for name in self.parts}
        for name, size in sizes.items():
            self.parts[name].add(size)
        if isinstance(row.entry, Instruction):
            self.entries.append(row.entry)
            if self.tokenizer is None:
                self.lengths.add(sum(sizes.values()))
        elif self.kind == "preference":
            asked = sizes["instruction"] + sizes["input"]
            self.lengths.add(asked + max(sizes["chosen"], sizes["rejected"]))
            self.n_longer_chosen += sizes["chosen"] > sizes["rejected"]
            self.n_equal_pairs += row.fields["chosen"] == row.fields["rejected"]
        else:
            self.lengths.add(self._length(text))

    def _length(self, text: str) -> int:
        return len(text.split()) if self.tokenizer is None else len(self.tokenizer.encode(text))

    def _loss(
        self, prompts: PromptTemplate, context_length: int | None, n_shown: int
    ) -> dict[str, Any] | None:
        """Which tokens carry loss; None without a tokenizer. The lengths are those of training's own rows."""
        if self.tokenizer is None:
            return None
        figures, lengths = loss_figures(
            self.entries, self.tokenizer, template=prompts, context_length=context_length, n_shown=n_shown
        )
        for length in lengths:
            self.lengths.add(length)
        return figures


def _unit(kind: DataKind, splits: Sequence[dict[str, Any]], *, has_paragraphs: bool) -> str:
    """What one row is called, such as a document or a pair."""
    if kind != "text":
        return "rows"
    if not has_paragraphs:
        return "documents"
    names = [split["path"].removesuffix(".gz").lower() for split in splits]
    is_records = [name.endswith((".jsonl", ".parquet")) for name in names]
    return "documents" if all(is_records) else "texts" if any(is_records) else "paragraphs"


def _n_windows(splits: Sequence[dict[str, Any]], context_length: int) -> int | None:
    """The number of windows that pre-training cuts the text into; None when it is not known."""
    streams = [split["stream"] for split in splits]
    if any(stream is None or stream["tokens"] is None for stream in streams):
        return None
    return int(sum(stream["tokens"] for stream in streams) // context_length)
