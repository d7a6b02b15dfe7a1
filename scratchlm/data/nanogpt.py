"""Read nanoGPT's token files: `train.bin` and `val.bin`, 16-bit token ids without a header."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.assets.registry import asset_path
from scratchlm.core.errors import DataError
from scratchlm.data.document_split import SIDES
from scratchlm.data.file_facts import file_sha256, remembered
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.nanogpt_meta import META_FILE
from scratchlm.tokenizers.word import LosslessWordTokenizer

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

DTYPE = np.dtype("<u2")
_IDS_AT_ONCE = 1 << 20
_IDS_LOOKED_AT, _FEW_IDS = 4096, 64


def nanogpt_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the ids: the characters in `meta.pkl` (read without running it), else GPT-2's.

    Raises: TokenizerError for a damaged meta.pkl; DataError when GPT-2's files are missing.
    """
    if (folder / META_FILE).is_file():
        return load_tokenizer(folder / META_FILE)
    return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))


def nanogpt_header(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Compute the statistics that the header of our token shards would hold; both files are read, if they
    have changed.

    Raises: DataError for a file that is missing, empty or truncated, and for ids outside the tokenizer's
        vocabulary.
    """
    sides: dict[str, dict[str, Any]] = {}
    n_documents = 0
    for side in SIDES:
        path = folder / f"{side}.bin"
        n_bytes = path.stat().st_size if path.is_file() else 0
        if n_bytes == 0 or n_bytes % DTYPE.itemsize:
            raise DataError(
                f"{path} must hold nanoGPT's token ids of {DTYPE.itemsize} bytes each, got {n_bytes} bytes; run its "
                "prepare.py again."
            )
        _refuse_wide_ids(path)
        counts = np.array(remembered(path, "token counts", lambda: _counts(path).tolist()))  # noqa: B023
        highest = int(counts.nonzero()[0][-1])
        if highest >= tokenizer.vocab_size:
            raise DataError(
                f"{path} must hold ids of the tokenizer in use, below {tokenizer.vocab_size}, got {highest}; name the "
                f"tokenizer that made them with --tokenizer.path, such as the {META_FILE} of character-level data."
            )
        sides[side] = {
            "file": path.name,
            "n_tokens": n_bytes // DTYPE.itemsize,
            "n_bytes": int(counts @ _bytes_per_token(tokenizer, len(counts))),
            "sha256": file_sha256(path),
        }
        end = tokenizer.end_of_text_id
        n_documents += 1 if end is None else int(counts[end])
    hashes = [tokenizer.fingerprint, *(sides[side]["sha256"] for side in SIDES)]
    return {
        "dtype": DTYPE.str,
        "n_documents": max(1, n_documents),
        "skipped_lines": 0,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "fingerprint": hashlib.sha256("".join(hashes).encode()).hexdigest(),
        **sides,
    }


def _refuse_wide_ids(path: Path) -> None:
    """Check that the ids are not of 4 bytes, of which each would be read as two, the second 0.

    Raises: DataError.
    """
    first = np.fromfile(path, dtype=DTYPE, count=_IDS_LOOKED_AT)
    if len(first) >= _FEW_IDS and not first[1::2].any() and first.any():
        raise DataError(
            f"{path} must hold nanoGPT's token ids of {DTYPE.itemsize} bytes each, and every second one is 0, as in "
            "ids of 4 bytes; write it again as 16-bit integers."
        )


def _counts(path: Path) -> NDArray[np.int64]:
    """Count the occurrences of each id; the file is read in parts, since a mapped one would stay in memory."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    with path.open("rb") as file:
        while len(ids := np.fromfile(file, dtype=DTYPE, count=_IDS_AT_ONCE)):
            counts += np.bincount(ids, minlength=1 << 16)
    return counts


def _bytes_per_token(tokenizer: Tokenizer, n: int) -> NDArray[np.int64]:
    """UTF-8 length of each token's text; 0 for special tokens."""
    lengths = np.zeros(n, dtype=np.int64)
    texts: dict[bytes, int] = {}
    if isinstance(tokenizer, BPETokenizer):
        texts = tokenizer.vocab
    elif isinstance(tokenizer, LosslessWordTokenizer):
        texts = {token.encode("utf-8", "surrogatepass"): id_ for token, id_ in tokenizer.str_to_int.items()}
    for text, id_ in texts.items():
        if id_ < n:
            lengths[id_] = len(text)
    return lengths
