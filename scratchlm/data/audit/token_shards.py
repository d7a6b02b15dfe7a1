"""Audit token shards: ids, vocabulary, document lengths, and the overlap of training and validation."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.data.audit.lengths import Lengths
from scratchlm.data.document_split import SIDES
from scratchlm.data.shards import PreparedTokens, open_tokens, tokenizer_of_tokens

IDS_AT_ONCE = 1 << 22
N_FREQUENT = 20


def shard_figures(folder: Path, *, context_length: int | None) -> dict[str, Any]:
    """Compute statistics of token shards, with the keys of `--json`; ids are read from disk in pieces.

    `rows` counts documents, `overlaps` the validation documents that also occur in training.
    Raises: DataError for a damaged folder; TokenizerError for a damaged tokenizer.
    """
    tokenizer = tokenizer_of_tokens(folder)
    prepared = open_tokens(folder)
    sides: dict[str, NDArray[Any]] = {"train": prepared.train, "val": prepared.val}
    counts = _counts(prepared.train, tokenizer.vocab_size) + _counts(prepared.val, tokenizer.vocab_size)
    end = tokenizer.end_of_text_id
    lengths = Lengths()
    documents: dict[str, list[int]] = {}
    for side, ids in sides.items():
        documents[side] = []
        for digest, length in _documents(ids, end):
            lengths.add(length)
            documents[side].append(digest)
    return {
        "rows": prepared.n_documents,
        "unit": "documents",
        "splits": [_split(prepared, side, sides[side], len(documents[side])) for side in SIDES],
        "tokenizer": {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        "length_unit": "tokens",
        "lengths": lengths.summary(),
        "truncation": None if context_length is None else lengths.truncation(context_length),
        "dtype": str(prepared.train.dtype),
        "skipped_lines": prepared.skipped_lines,
        "vocabulary": {
            "used": int((counts > 0).sum()),
            "size": tokenizer.vocab_size,
            "end_of_text": int(counts[end]) if end is not None else None,
            "frequent": [
                {"token": tokenizer.decode([int(token)]), "n": int(counts[token])}
                for token in np.argsort(-counts, kind="stable")[:N_FREQUENT]
                if counts[token]
            ],
        },
        "overlaps": _overlap(documents),
    }


def _counts(ids: NDArray[Any], vocab_size: int) -> NDArray[np.int64]:
    total = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = np.bincount(ids[start : start + IDS_AT_ONCE], minlength=vocab_size)
        total[: len(part)] += part[:vocab_size]
    return total


def _documents(ids: NDArray[Any], end_of_text_id: int | None) -> Iterator[tuple[int, int]]:
    """Digest and length of each document, the ids between two end-of-text ids."""
    digest, length = hashlib.blake2b(digest_size=8), 0
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = np.asarray(ids[start : start + IDS_AT_ONCE])
        ends = [] if end_of_text_id is None else np.flatnonzero(part == end_of_text_id).tolist()
        begin = 0
        for stop in ends:
            digest.update(part[begin:stop].tobytes())
            if length + stop - begin:
                yield int.from_bytes(digest.digest(), "big"), length + stop - begin
            digest, length, begin = hashlib.blake2b(digest_size=8), 0, stop + 1
        digest.update(part[begin:].tobytes())
        length += len(part) - begin
    if length:
        yield int.from_bytes(digest.digest(), "big"), length


def _split(prepared: PreparedTokens, side: str, ids: NDArray[Any], n_documents: int) -> dict[str, Any]:
    n_bytes = prepared.train_n_bytes if side == "train" else prepared.val_n_bytes
    return {
        "path": f"{prepared.folder}/{side}.bin",
        "rows": n_documents,
        "tokens": len(ids),
        "text_bytes": n_bytes,
        "bytes_per_token": n_bytes / len(ids) if len(ids) else None,
    }


def _overlap(documents: dict[str, list[int]]) -> list[dict[str, Any]]:
    train, val = (np.array(documents[side], dtype=np.uint64) for side in SIDES)
    shared = int(np.isin(val, train).sum())
    return [
        {"first": "train", "second": "val", "rows": len(val), "exact": shared, "near": None, "examples": []}
    ]
