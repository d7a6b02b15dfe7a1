"""Texts with labels: reading them from files, and as batches for a classifier."""

from __future__ import annotations

import csv
import glob
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.files import check_characters, read_utf8
from scratchlm.data.ag_news import is_ag_news, read_ag_news
from scratchlm.data.imdb import read_imdb
from scratchlm.data.padding import pad_right

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

logger = logging.getLogger(__name__)


SUFFIXES = (".tsv", ".csv", ".jsonl")  # of files that folders and globs are searched for


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledText:
    """A text and the name of the class it belongs to."""

    text: str
    label: str


def read_labelled(paths: str | Path | Sequence[str | Path]) -> list[LabelledText]:
    """Every labelled text of one or more files, in order; of a folder or glob, those with a known suffix.

    Read by suffix: .tsv is `label<TAB>text` without quoting, a header row optional; .csv has a header that
    names the columns text and label in any case, quoted as usual, or is AG News as published, which has none;
    .jsonl has objects with "text" and "label"; .tar.gz is the archive of IMDb's reviews, both sides.
    Any other file is taken for .tsv, the form of the SMS Spam Collection.
    Raises: DataError naming the file and line for a row that does not fit, and for a file without rows.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    rows: list[LabelledText] = []
    for path in [file for name in paths for file in _expand(Path(name))]:
        if path.name.lower().endswith(".tar.gz"):
            rows += [LabelledText(text=text, label=label) for text, label in read_imdb(path)]
            continue
        content = read_utf8(path)
        match path.suffix.lower():
            case ".csv":
                found = _read_csv(content, path)
            case ".jsonl":
                found = _read_jsonl(content, path)
            case _:
                found = _read_tsv(content, path)
        if not found:
            raise DataError(f"{path} should hold labelled texts, found none; check the file.")
        rows += found
    if not rows:
        raise DataError("labelled texts need at least one file, found no path at all; name one.")
    return rows


def _expand(path: Path) -> list[Path]:
    """The files of a folder or glob; a path of its own is a file, whatever its suffix."""
    is_glob = not path.exists() and glob.has_magic(str(path))
    if not (path.is_dir() or is_glob):
        return [path]
    inside = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = sorted(file for file in inside if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            f"{path} should hold labelled texts, found no file that ends in {', '.join(SUFFIXES)}; name the file."
        )
    return files


def _read_tsv(content: str, path: Path) -> list[LabelledText]:
    # Quote characters are text here: a CSV reader would join 5,574 SMS messages into 5,572.
    lines = [line.removesuffix("\r") for line in content.rstrip("\r\n").split("\n")]
    if lines == [""]:
        return []
    header = [cell.strip().casefold() for cell in lines[0].split("\t")]
    has_header = sorted(header) == ["label", "text"]
    text_column = header.index("text") if has_header else 1
    rows = []
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        cells = line.split("\t", maxsplit=1) if text_column == 1 else line.rsplit("\t", maxsplit=1)
        if len(cells) != 2:
            raise DataError(
                f"{path} line {number} must be label<TAB>text, found no tab in {line[:60]!r}; put one in."
            )
        rows.append(_row(cells[text_column], cells[1 - text_column], path, number))
    return rows


def _read_csv(content: str, path: Path) -> list[LabelledText]:
    if is_ag_news(content):
        return [_row(text, label, path, number) for text, label, number in read_ag_news(content, path)]
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    rows: list[LabelledText] = []
    columns: tuple[int, int] | None = None
    names: list[str] = []
    try:
        for cells in reader:
            if columns is None:
                names = [name.strip().casefold() for name in cells]
                if names.count("text") != 1 or names.count("label") != 1:
                    raise DataError(
                        f"{path} must begin with a header that names the columns text and label, found "
                        f"{', '.join(map(repr, cells)) or 'an empty line'}; add or rename them."
                    )
                columns = names.index("text"), names.index("label")
            elif not cells:
                continue  # a blank line, which CSV writers leave at the end
            elif len(cells) != len(names):
                raise DataError(
                    f"{path} line {reader.line_num} must have {len(names)} cells as the header has, found "
                    f"{len(cells)}; quote texts that hold commas or line ends."
                )
            else:
                rows.append(_row(cells[columns[0]], cells[columns[1]], path, reader.line_num))
    except csv.Error as cause:
        raise DataError(
            f"{path} line {reader.line_num} must be well-formed CSV, found: {cause}; check its quotes."
        ) from cause
    return rows


def _read_jsonl(content: str, path: Path) -> list[LabelledText]:
    rows = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as cause:
            raise DataError(
                f"{path} line {number} must be one JSON object, found: {cause}; repair it."
            ) from cause
        if not isinstance(value, dict) or not {"text", "label"} <= value.keys():
            found = ", ".join(map(repr, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(f'{path} line {number} must have "text" and "label", found {found}; add them.')
        rows.append(_row(value["text"], value["label"], path, number))
    return rows


def _row(text: Any, label: Any, path: Path, number: int) -> LabelledText:
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)  # many data sets number their classes
    for name, value in (("text", text), ("label", label)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{path} line {number} must have a {name} that is not empty, found {value!r}; fill it or "
                "remove it."
            )
        check_characters(value, where=f"{path} line {number}, {name},")
    return LabelledText(text=text, label=label.strip())


class ClassificationExamples:
    """Token rows with class numbers, padded on the right to the longest row of a batch.

    max_length cuts longer rows and keeps their first tokens (the book's way) or their last; is_truncated says
    which, n_truncated how many. pad_to gives every batch the same width instead. hides_padding=False lets the
    model take padding for text, as the book does: batches then have no mask. Texts whose class has the number
    ignore_index carry no loss.

    Shapes: batch -> inputs (B, T), targets (B,) in range(C), attention_mask (B, T), True at real tokens, or None
    Raises: DataError for no rows, an empty row, or fewer than two classes, a label outside range(C);
        ConfigError for a max_length below 1 or a pad_to below the longest row.
    """

    def __init__(
        self,
        ids: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        pad_id: int,
        max_length: int | None = None,
        classes: Sequence[str] | None = None,
        keep: Literal["first", "last"] = "first",
        pad_to: int | None = None,
        hides_padding: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        if classes is None:
            classes = [str(number) for number in range(max(labels, default=0) + 1)]
        self.classes = tuple(classes)
        _check_rows(ids, labels, self.classes)
        if max_length is not None and max_length < 1:
            raise ConfigError(f"max_length must be at least 1 token, got {max_length}.")
        if keep not in ("first", "last"):
            raise ConfigError(f"keep must be first or last, got {keep!r}.")
        cut = slice(max_length) if keep == "first" or max_length is None else slice(-max_length, None)
        self._rows = [np.asarray(row, dtype=np.int64)[cut] for row in ids]
        self._labels = np.asarray(labels, dtype=np.int64)
        self.lengths: NDArray[np.int64] = np.array([len(row) for row in self._rows], dtype=np.int64)
        self.is_truncated = [len(row) < len(whole) for row, whole in zip(self._rows, ids)]
        self.n_truncated = sum(self.is_truncated)
        self.pad_id = pad_id
        self.pad_to = pad_to
        self.hides_padding = hides_padding
        self.ignore_index = ignore_index
        if pad_to is not None and pad_to < self.lengths.max():
            raise ConfigError(
                f"pad_to must reach the longest text, got {pad_to} for {self.lengths.max()} tokens; raise it "
                "or lower max_length."
            )
        if self.n_truncated:
            logger.info("cut %d of %d texts to %d tokens", self.n_truncated, len(self), max_length)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        pad_id: int | None = None,
        classes: Sequence[str] | None = None,
        keep: Literal["first", "last"] = "first",
        pad_to: int | None = None,
        hides_padding: bool = True,
        ignore_index: int = IGNORE_INDEX,
    ) -> ClassificationExamples:
        """Encode texts and number their labels.

        classes gives the order of the classes, so that validation data uses training's (None: sorted by
        name). pad_id None means end-of-text, as in the book, or 0; padding is masked, so it only has to be
        some token.
        Raises: DataError also for an empty text, or a label that is not among the classes.
        """
        names = tuple(sorted(set(labels)) if classes is None else classes)
        numbers = {name: number for number, name in enumerate(names)}
        for index, (text, label) in enumerate(zip(texts, labels)):
            if not text.strip():
                raise DataError(f"text {index} must not be empty, found {text!r}; remove it.")
            if label not in numbers:
                raise DataError(
                    f"text {index} must have a label among {', '.join(map(repr, names))}, found {label!r}; "
                    "correct it or train with it."
                )
        if pad_id is None:
            pad_id = tokenizer.end_of_text_id if tokenizer.end_of_text_id is not None else 0
        return cls(
            [tokenizer.encode(text) for text in texts],
            [numbers[label] for label in labels],
            pad_id=pad_id,
            max_length=max_length,
            classes=names,
            keep=keep,
            pad_to=pad_to,
            hides_padding=hides_padding,
            ignore_index=ignore_index,
        )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def strata(self) -> NDArray[np.int64]:
        """Each text's class: batches of similar length should still hold every class."""
        return self._labels

    def batch(self, indices: Sequence[int] | NDArray[Any]) -> Batch:
        """The texts of those numbers as one batch."""
        rows = [self._rows[index] for index in indices]
        inputs, is_real = pad_right(rows, value=self.pad_id, width=self.pad_to)  # (B, T)
        targets = torch.from_numpy(self._labels[np.asarray(indices)])  # (B,)
        targets = targets.masked_fill(targets == self.ignore_index, IGNORE_INDEX)
        return Batch(inputs=inputs, targets=targets, attention_mask=is_real if self.hides_padding else None)

    def row(self, index: int) -> NDArray[np.int64]:
        """The ids of one text as the model takes them: with its padding where that is not hidden."""
        row = self._rows[index]
        if self.hides_padding or self.pad_to is None:
            return row
        return np.pad(row, (0, self.pad_to - len(row)), constant_values=self.pad_id)


def _check_rows(ids: Sequence[Sequence[int]], labels: Sequence[int], classes: Sequence[str]) -> None:
    if len(ids) != len(labels):
        raise DataError(f"each text needs one label, found {len(ids)} texts and {len(labels)} labels.")
    if not ids:
        raise DataError("a classifier needs texts, found none; check the file and the split.")
    if len(set(classes)) < 2:
        raise DataError(
            f"a classifier needs at least 2 classes, found {', '.join(map(repr, classes)) or 'none'}; add "
            "texts with other labels."
        )
    for index, (row, label) in enumerate(zip(ids, labels)):
        if len(row) == 0:
            raise DataError(f"text {index} must have at least one token, found none; remove it.")
        if not 0 <= label < len(classes):
            raise DataError(f"text {index} must have a class in 0..{len(classes) - 1}, found {label}.")
