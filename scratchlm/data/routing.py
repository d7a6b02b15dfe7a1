"""From documents to jobs: one reading measures them all, a second sends each stretch of text to its side.

The text itself is never held: of each document, a hash and a length stay in memory between the two readings.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scratchlm.data.document_split import SplitBy, choose_validation, hash_prefix, resolve_split, tail_start
from scratchlm.data.parallel_encoding import Job
from scratchlm.data.sources import Piece

SIDES = ("train", "val")
JOB_BYTES = 1 << 20  # about this much text is encoded at a time


@dataclass(slots=True)
class Survey:
    """What a first reading finds out about every document, in 16 bytes each."""

    hashes: array[int] = field(default_factory=lambda: array("Q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))  # in characters
    n_bytes: int = 0


def survey_sources(pieces: Iterator[Piece]) -> Survey:
    """Read everything once and remember next to nothing."""
    survey, digest, n_chars = Survey(), hashlib.sha256(), 0
    for piece in pieces:
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
    """Which side every character goes to: by document, or by its position when there is a tail."""

    is_val: NDArray[np.bool_]  # per document; unused when there is a tail
    tail_from: int | None  # the character where validation begins

    @classmethod
    def plan(cls, survey: Survey, *, split_by: SplitBy, val_fraction: float) -> Route:
        """Split what the survey found, as `split_documents` would; val_fraction 0 means no validation."""
        sizes = np.frombuffer(survey.sizes, dtype=np.int64)
        if val_fraction == 0:
            return cls(is_val=np.zeros(len(sizes), dtype=np.bool_), tail_from=None)
        if resolve_split(split_by, len(sizes), val_fraction) == "tail":
            cut = tail_start(int(sizes.sum()), val_fraction)
            return cls(is_val=np.zeros(len(sizes), dtype=np.bool_), tail_from=cut)
        hashes = np.frombuffer(survey.hashes, dtype=np.uint64)
        return cls(is_val=choose_validation(hashes, sizes, val_fraction), tail_from=None)

    def jobs(self, pieces: Iterator[Piece]) -> Iterator[Job]:
        """The pieces as jobs of bounded size, each of one side, in the order of each side's text."""
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
        """Each stretch of text with its side, and whether it is the document's first on that side."""
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
            is_known = document < len(self.is_val)  # a file that has grown meanwhile is found out at the end
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
