"""Split text into training and validation, and cut it into jobs for the encoder.

A hash of its content assigns each whole document to a side, or the last part of all text is for validation.
Windows are cut after the split, so no window contains text of both sides. The text is read twice, first to
measure it and then to encode it; in between, only a hash and a length of each document stay in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.parallel_encoding import Job
from scratchlm.data.sources import Document, Piece

SplitBy = Literal["auto", "document", "tail"]


def split_documents(
    documents: Sequence[Document], *, val_fraction: float = 0.1, split_by: SplitBy = "auto"
) -> tuple[list[Document], list[Document]]:
    """Split documents into training and validation, in their order.

    `document` keeps documents whole (see `choose_validation`); `tail` takes the last val_fraction of all characters,
    and may cut a document; `auto` is `tail` for one document and `document` for several.
    Raises: ConfigError for a val_fraction outside (0, 1) or an unknown split_by; DataError when a side would
        be empty.
    Example:
        >>> train, val = split_documents([Document(text="0123456789", origin="digits")], val_fraction=0.2)
        >>> train[0].text, val[0].text
        ('01234567', '89')
    """
    sizes = np.array([len(document.text) for document in documents], dtype=np.int64)
    if resolve_split(split_by, len(documents), val_fraction) == "document":
        hashes = np.array([content_hash(document.text) for document in documents], dtype=np.uint64)
        is_val = choose_validation(hashes, sizes, val_fraction)
        return (
            [document for document, chosen in zip(documents, is_val) if not chosen],
            [document for document, chosen in zip(documents, is_val) if chosen],
        )
    cut = tail_start(int(sizes.sum()), val_fraction)
    train: list[Document] = []
    val: list[Document] = []
    for document in documents:
        n_left = max(0, min(cut, len(document.text)))  # number of its characters used for training
        cut -= len(document.text)
        for side, text in ((train, document.text[:n_left]), (val, document.text[n_left:])):
            if text:
                side.append(Document(text=text, origin=document.origin))
    return train, val


def resolve_split(split_by: SplitBy, n_documents: int, val_fraction: float) -> Literal["document", "tail"]:
    """Resolve `auto`.

    Raises: ConfigError for wrong settings; DataError for `document` with fewer than two documents.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction must be between 0 and 1, got {val_fraction}; 0.1 is usual.")
    if split_by not in ("auto", "document", "tail"):
        raise ConfigError(f"split_by must be auto, document or tail, got {split_by!r}; choose one of them.")
    if split_by == "document" and n_documents < 2:
        raise DataError(
            f"splitting by document needs at least 2 documents, got {n_documents}; use split_by='tail'."
        )
    if split_by == "auto":
        return "tail" if n_documents < 2 else "document"
    return split_by


def content_hash(text: str) -> int:
    """The first 64 bits of the text's sha256."""
    return hash_prefix(hashlib.sha256(text.encode("utf-8")).digest())


def hash_prefix(digest: bytes) -> int:
    """The first 64 bits of a digest as a number."""
    return int.from_bytes(digest[:8], "big")


def choose_validation(
    hashes: NDArray[np.uint64], sizes: NDArray[np.int64], val_fraction: float
) -> NDArray[np.bool_]:
    """Select validation documents: those whose hash is in the first val_fraction of all possible hashes.

    So equal documents share a side, and adding documents does not move the others. If this leaves a side
    empty, or more than half of the text for validation, as it can with few documents, the document whose size
    is nearest to val_fraction of the text is used for validation instead.
    Shapes: hashes (n,), sizes (n,) -> (n,)
    Raises: DataError when all documents are equal.
    """
    is_val: NDArray[np.bool_] = (hashes >> np.uint64(11)) / 2**53 < val_fraction  # 53 bits: exact as a float
    total = int(sizes.sum())
    if is_val.any() and 2 * int(sizes[is_val].sum()) <= total:
        return is_val
    by_distance = np.lexsort((hashes, np.abs(sizes - val_fraction * total)))
    is_val = hashes == hashes[by_distance[0]]
    if is_val.all():
        raise DataError(
            f"splitting by document needs 2 different documents, got {len(hashes)} equal ones; remove the "
            "copies or use split_by='tail'."
        )
    return is_val


def tail_start(n_chars: int, val_fraction: float) -> int:
    """The character at which validation begins.

    Raises: DataError when the text is too short for two sides.
    """
    cut = int(n_chars * (1 - val_fraction))
    if not 0 < cut < n_chars:
        raise DataError(
            f"a split at {1 - val_fraction:.3g} of the text needs characters on both sides, got {n_chars} "
            "in all; give more text or another val_fraction."
        )
    return cut


SIDES = ("train", "val")
JOB_BYTES = 1 << 20  # approximate size of the text that is encoded at a time


@dataclass(slots=True)
class Survey:
    """Hash and size of every document, in 16 bytes each."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))  # in characters
    n_bytes: int = 0
    n_skipped: int = 0  # lines that could not be used
    first_skipped: str = ""  # error of the first

    def skip(self, complaint: str) -> None:
        """Count a line that could not be used."""
        self.first_skipped = self.first_skipped or complaint
        self.n_skipped += 1


def survey_sources(read: Callable[..., Iterator[Piece]]) -> Survey:
    """Read every document with `read(on_skip=...)`, and keep its hash and size but not its text."""
    survey, digest, n_chars = Survey(), hashlib.sha256(), 0
    for piece in read(on_skip=survey.skip):
        data = piece.text.encode("utf-8")
        digest.update(data)
        n_chars += len(piece.text)
        survey.n_bytes += len(data)
        if piece.ends_document:
            survey.hashes.append(hash_prefix(digest.digest()))
            survey.sizes.append(n_chars)
            digest, n_chars = hashlib.sha256(), 0
    return survey


@dataclass(frozen=True, slots=True)
class Route:
    """The side of every character: by its document, or by its position for the tail split."""

    is_val: NDArray[np.bool_]  # per document; unused for the tail split
    tail_from: int | None  # the character where validation begins

    @classmethod
    def plan(cls, survey: Survey, *, split_by: SplitBy, val_fraction: float) -> Route:
        """Plan the same split as `split_documents`; val_fraction 0 means no validation."""
        sizes = np.frombuffer(survey.sizes, dtype=np.int64)
        if val_fraction == 0:
            return cls(is_val=np.zeros(len(sizes), dtype=np.bool_), tail_from=None)
        if resolve_split(split_by, len(sizes), val_fraction) == "tail":
            cut = tail_start(int(sizes.sum()), val_fraction)
            return cls(is_val=np.zeros(len(sizes), dtype=np.bool_), tail_from=cut)
        hashes = np.frombuffer(survey.hashes, dtype=np.uint64)
        return cls(is_val=choose_validation(hashes, sizes, val_fraction), tail_from=None)

    def jobs(self, pieces: Iterator[Piece]) -> Iterator[Job]:
        """Group the pieces into jobs of bounded size and one side, in the order of each side's text."""
        waiting = {side: _JobBuilder(side=side) for side in SIDES}
        n_documents = dict.fromkeys(SIDES, 0)
        for side, text, is_start in self._sided(pieces):
            joins = is_start and n_documents[side] > 0
            n_documents[side] += is_start
            waiting[side].add(text, is_start=is_start, joins=joins)
            if waiting[side].n_bytes >= JOB_BYTES:
                yield waiting[side].build()
                waiting[side] = _JobBuilder(side=side)
        yield from (builder.build() for builder in waiting.values() if builder.texts)

    def _sided(self, pieces: Iterator[Piece]) -> Iterator[tuple[str, str, bool]]:
        """Yield each part of a piece with its side, and whether it is the document's first part there."""
        document, position, started = 0, 0, dict.fromkeys(SIDES, False)
        for piece in pieces:
            for side, text in self._cut(piece.text, document, position):
                yield side, text, not started[side]
                started[side] = True
            position += len(piece.text)
            if piece.ends_document:
                document += 1
                started = dict.fromkeys(SIDES, False)

    def _cut(self, text: str, document: int, position: int) -> list[tuple[str, str]]:
        if self.tail_from is None:
            is_known = document < len(self.is_val)  # a file that has grown since is detected at the end
            is_val = is_known and self.is_val[document]
            return [("val" if is_val else "train", text)] if text else []
        n_train = max(0, self.tail_from - position)
        return [pair for pair in (("train", text[:n_train]), ("val", text[n_train:])) if pair[1]]


@dataclass(slots=True)
class _JobBuilder:
    side: str
    texts: list[str] = field(default_factory=list)
    joins: list[bool] = field(default_factory=list)
    n_documents: int = 0
    n_bytes: int = 0
    n_characters: int = 0

    def add(self, text: str, *, is_start: bool, joins: bool) -> None:
        self.texts.append(text)
        self.joins.append(joins)
        self.n_documents += is_start
        self.n_characters += len(text)
        self.n_bytes += len(text) if text.isascii() else len(text.encode("utf-8"))

    def build(self) -> Job:
        return Job(
            side=self.side,
            texts=tuple(self.texts),
            joins=tuple(self.joins),
            n_documents=self.n_documents,
            n_bytes=self.n_bytes,
            n_characters=self.n_characters,
        )
