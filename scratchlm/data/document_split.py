"""Split text into training and validation, and cut it into jobs for the encoder.

A hash of its content assigns each whole document to a side, or the last part of all text is for validation.
Windows are cut after the split, so no window contains text of both sides. The text is read twice, first to
measure it and then to encode it; in between, only a hash and a length of each document stay in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.parallel_encoding import Job
from scratchlm.data.sources import Piece

SplitBy = Literal["auto", "document", "tail"]


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
            survey.hashes.append(int.from_bytes(digest.digest()[:8], "big"))
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
        """Plan a split; val_fraction 0 means no validation.

        `document` keeps documents whole (see `choose_validation`); `tail` takes the last val_fraction of all
        characters, and may cut a document; `auto` is `tail` for one document and `document` for several.
        Raises: as `resolve_split`, `choose_validation` and `tail_start`.
        """
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
        waiting = {side: Job(side) for side in SIDES}
        n_documents = dict.fromkeys(SIDES, 0)
        for side, text, is_start in self._sided(pieces):
            joins = is_start and n_documents[side] > 0
            n_documents[side] += is_start
            waiting[side].add(text, is_start=is_start, joins=joins)
            if waiting[side].n_bytes >= JOB_BYTES:
                yield waiting[side]
                waiting[side] = Job(side)
        yield from (job for job in waiting.values() if job.texts)

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
