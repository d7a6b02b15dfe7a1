"""Which text trains and which validates: whole documents by their content, or one contiguous tail.

Windows are cut only after the split, so no window ever holds text of both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.sources import Document

SplitBy = Literal["auto", "document", "tail"]


def split_documents(
    documents: Sequence[Document], *, val_fraction: float = 0.1, split_by: SplitBy = "auto"
) -> tuple[list[Document], list[Document]]:
    """Training and validation documents, each in the order they came.

    `document` keeps documents whole (see `choose_validation`); `tail` takes the last val_fraction of all
    characters and cuts the document it begins in; `auto` is `tail` for one document and `document` for
    several.
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
        n_left = max(0, min(cut, len(document.text)))  # how many of its characters train
        cut -= len(document.text)
        for side, text in ((train, document.text[:n_left]), (val, document.text[n_left:])):
            if text:
                side.append(Document(text=text, origin=document.origin))
    return train, val


def resolve_split(split_by: SplitBy, n_documents: int, val_fraction: float) -> Literal["document", "tail"]:
    """What `auto` means here.

    Raises: ConfigError for settings that mean nothing; DataError for whole documents when there are not two.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction must lie between 0 and 1, got {val_fraction}; 0.1 is usual.")
    if split_by not in ("auto", "document", "tail"):
        raise ConfigError(f"split_by must be auto, document or tail, got {split_by!r}; choose one of them.")
    if split_by == "document" and n_documents < 2:
        raise DataError(
            f"splitting by document needs at least 2 documents, found {n_documents}; use split_by='tail'."
        )
    if split_by == "auto":
        return "tail" if n_documents < 2 else "document"
    return split_by


def content_hash(text: str) -> int:
    """64 bits that depend on nothing but the text."""
    return hash_prefix(hashlib.sha256(text.encode("utf-8")).digest())


def hash_prefix(digest: bytes) -> int:
    """The first 64 bits of a digest as a number."""
    return int.from_bytes(digest[:8], "big")


def choose_validation(
    hashes: NDArray[np.uint64], sizes: NDArray[np.int64], val_fraction: float
) -> NDArray[np.bool_]:
    """True for the documents that validate: those whose hash lies in the first val_fraction of all hashes.

    So equal documents share a side, and adding documents does not move the others. A handful of documents can
    leave a side empty that way, or validation with more than half of the text; then the one document nearest
    in size to val_fraction of the text validates instead.
    Shapes: hashes (n,), sizes (n,) -> (n,)
    Raises: DataError when all documents are equal, so that no side could do without them.
    """
    is_val: NDArray[np.bool_] = (hashes >> np.uint64(11)) / 2**53 < val_fraction  # 53 bits: exact as a float
    total = int(sizes.sum())
    if is_val.any() and 2 * int(sizes[is_val].sum()) <= total:
        return is_val
    by_distance = np.lexsort((hashes, np.abs(sizes - val_fraction * total)))
    is_val = hashes == hashes[by_distance[0]]
    if is_val.all():
        raise DataError(
            f"splitting by document needs 2 different documents, found {len(hashes)} equal ones; remove the "
            "copies or use split_by='tail'."
        )
    return is_val


def tail_start(n_chars: int, val_fraction: float) -> int:
    """The character at which validation begins.

    Raises: DataError when the text is too short for both sides to hold something.
    """
    cut = int(n_chars * (1 - val_fraction))
    if not 0 < cut < n_chars:
        raise DataError(
            f"a split at {1 - val_fraction:.3g} of the text needs characters on both sides, found {n_chars} "
            "in all; give more text or another val_fraction."
        )
    return cut
