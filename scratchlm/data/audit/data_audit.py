"""All of an X-ray: read every row once, let each collector look at it, and tell what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.audit.duplicates import Copies
from scratchlm.data.audit.faults import ByteFaults, TextFaults
from scratchlm.data.audit.findings import findings
from scratchlm.data.audit.lengths import Lengths
from scratchlm.data.audit.reading import (
    DataKind,
    DataRow,
    Reading,
    checked_kind,
    detect_kind,
    folder_of_tokens,
    stream_figures,
    usable_rows,
)
from scratchlm.data.audit.token_loss import loss_figures
from scratchlm.data.audit.token_shards import shard_figures
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.label_split import leak_free_split, split_figures
from scratchlm.data.prompt_templates import PromptTemplate, template
from scratchlm.data.row_files import RowSettings

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

MOST_COMPARED = 20_000  # texts among which near-duplicates are looked for


def inspect_data(
    paths: Sequence[str | Path],
    *,
    kind: str = "auto",
    tokenizer: Tokenizer | None = None,
    context_length: int | None = None,
    template_name: str = "alpaca",
    settings: RowSettings | None = None,
    document_separator: str = "",
    most_compared: int = MOST_COMPARED,
    n_shown: int = 3,
) -> dict[str, Any]:
    """What is in the files, as JSON would have it; each path is one split, and leakage is looked for between them.

    Figures are of all splits together. Without a tokenizer, lengths count words, and no tokens are shown.
    n_shown: instruction rows of which each token is shown with or without loss.
    Units: lengths in `length_unit`, tokens or words
    Raises: DataError for a path that cannot be read, holds no usable row, or is of another kind than the first;
        ConfigError for settings that mean nothing.
    """
    if not paths:
        raise ConfigError("inspect needs at least one file or folder, found no path at all; name one.")
    if context_length is not None and context_length < 1:
        raise ConfigError(f"context_length must be at least 1 token, got {context_length}.")
    if most_compared < 0 or n_shown < 0:
        raise ConfigError(
            f"most_compared and n_shown must not be below 0, got {most_compared} and {n_shown}."
        )
    prompts = template(template_name)
    settings = settings or RowSettings()
    found = _kind_of_all(paths, kind, settings)
    if found == "shards":
        figures = {"kind": found, **_one_token_folder(paths, context_length)}
        return figures | {"findings": findings(figures)}
    xray = _XRay([str(path) for path in paths], found, tokenizer, most_compared=most_compared)
    for split, path in enumerate(paths):
        xray.read(split, path, settings, document_separator=document_separator)
    figures = xray.figures(prompts, context_length=context_length, n_shown=n_shown)
    return figures | {"findings": findings(figures)}


def _kind_of_all(paths: Sequence[str | Path], kind: str, settings: RowSettings) -> DataKind:
    if kind != "auto":
        return checked_kind(kind)
    kinds = [detect_kind(path, settings) for path in paths]
    for path, other in zip(paths, kinds):
        if other != kinds[0]:
            raise DataError(
                f"all splits should be of one kind, found {kinds[0]} in {paths[0]} and {other} in {path}; inspect "
                "them one by one, or name the kind with --kind."
            )
    return kinds[0]


def _one_token_folder(paths: Sequence[str | Path], context_length: int | None) -> dict[str, Any]:
    folders = {folder_of_tokens(Path(path)) for path in paths}
    folder = folders.pop()
    if folders or folder is None:
        raise DataError(
            f"token shards are inspected one folder at a time, found {', '.join(map(str, paths))}; name one folder "
            "that holds header.json."
        )
    return shard_figures(folder, context_length=context_length)


class _XRay:
    """The collectors of one inspection, and what each split told on the way."""

    def __init__(
        self, names: list[str], kind: DataKind, tokenizer: Tokenizer | None, *, most_compared: int
    ) -> None:
        self.kind = kind
        self.tokenizer = tokenizer
        self.lengths, self.parts = Lengths(), {name: Lengths() for name in _PARTS.get(kind, ())}
        self.copies = Copies(names, most_compared=most_compared)
        self.faults = TextFaults(tokenizer.special_tokens if tokenizer is not None else ())
        self.labels: Counter[str] = Counter()
        self.splits: list[dict[str, Any]] = []
        self.entries: list[Instruction] = []
        self.n_characters = 0
        self.has_paragraphs = False
        self.n_longer_chosen = self.n_equal_pairs = 0
        self.unusable = Reading()

    def read(self, split: int, path: str | Path, settings: RowSettings, *, document_separator: str) -> None:
        """Show every row of one split to every collector."""
        reading = Reading()
        labels: Counter[str] = Counter()
        n_rows = 0
        for row in usable_rows(
            path, self.kind, reading, settings=settings, document_separator=document_separator
        ):
            n_rows += 1
            self._look_at(row, split)
            if "label" in row.fields:
                labels[row.fields["label"]] += 1
        read_as_training = self._as_training_reads(path, reading, settings, document_separator)
        if n_rows == 0:
            why = read_as_training.get("refused") or next(iter(reading.complaints), "")
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
                "bytes": _told_bytes(reading.faults),
                "classes": dict(labels.most_common()) if labels else None,
                "notes": reading.notes.sentences(),
                **read_as_training,
            }
        )
        self.has_paragraphs |= not document_separator

    def figures(self, prompts: PromptTemplate, *, context_length: int | None, n_shown: int) -> dict[str, Any]:
        """Everything, under the keys that `--json` shows."""
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
            figures["windows"] = _windows(self.splits, context_length)
        if self.kind == "classification":
            figures |= _balance(self.labels)
        if self.kind == "preference":
            figures["pairs"] = {"chosen_longer": self.n_longer_chosen, "equal": self.n_equal_pairs}
        figures |= self.copies.figures() | self.faults.figures()
        is_whole = len(self.copies.compared) == figures["rows"]
        if self.kind == "classification" and len(self.splits) == 1 and is_whole:
            figures["split"] = self._split()
        return figures

    def _split(self) -> dict[str, Any]:
        """How `finetune classify` would divide the rows, or why it cannot."""
        texts, labels, groups = zip(*self.copies.compared)
        try:
            split = leak_free_split(texts, labels, groups)
        except DataError as complaint:
            return {"refused": str(complaint)}
        return {"refused": None, **split_figures(split)}

    def _as_training_reads(
        self, path: str | Path, reading: Reading, settings: RowSettings, document_separator: str
    ) -> dict[str, Any]:
        if self.kind == "text":
            return stream_figures(path, self.tokenizer, settings, document_separator=document_separator)
        return {"refused": reading.refusal}

    def _look_at(self, row: DataRow, split: int) -> None:
        text = row.text
        self.n_characters += len(text)
        self.faults.add(text, row.where)
        self.copies.add(split, text, key=row.key, label=row.fields.get("label", ""))
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


_PARTS: dict[DataKind, tuple[str, ...]] = {
    "instruction": ("instruction", "input", "output"),
    "preference": ("instruction", "input", "chosen", "rejected"),
}


def _unit(kind: DataKind, splits: Sequence[dict[str, Any]], *, has_paragraphs: bool) -> str:
    """What one row is."""
    if kind != "text":
        return "rows"
    if not has_paragraphs:
        return "documents"
    names = [split["path"].removesuffix(".gz").lower() for split in splits]
    is_records = [name.endswith((".jsonl", ".parquet")) for name in names]
    return "documents" if all(is_records) else "texts" if any(is_records) else "paragraphs"


def _balance(labels: Counter[str]) -> dict[str, Any]:
    """How the classes share the rows; `majority` is the accuracy of always guessing the largest."""
    total = labels.total() if hasattr(labels, "total") else sum(labels.values())
    classes = [{"label": label, "n": n, "share": n / total} for label, n in labels.most_common()]
    return {"classes": classes, "majority": classes[0]["share"]}


def _windows(splits: Sequence[dict[str, Any]], context_length: int) -> int | None:
    """How many windows of the context length pre-training cuts all the text into; None when not known."""
    streams = [split["stream"] for split in splits]
    if any(stream is None or stream["tokens"] is None for stream in streams):
        return None
    return int(sum(stream["tokens"] for stream in streams) // context_length)


def _told_bytes(faults: ByteFaults) -> dict[str, Any]:
    return {
        "n": faults.n_bytes,
        "invalid_utf8": faults.n_invalid,
        "first_invalid": faults.first_invalid,
        "byte_order_mark": faults.has_byte_order_mark,
        "lf": faults.n_lf,
        "crlf": faults.n_crlf,
        "cr": faults.n_cr,
        "zero": faults.n_zero,
    }
