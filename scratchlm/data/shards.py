"""Tokenise text once, into token shards that are memory-mapped for training.

A token folder holds `train.bin` and `val.bin` (token ids, little-endian uint16 or uint32), the `tokenizer.json` that
made them, and `header.json`. Its name is a fingerprint of the text's content, the tokenizer and the split, so an
equal request reuses the folder and any other request creates a new one. Folders are written atomically.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.atomic_replace import remove_partials
from scratchlm.core.errors import ConfigError, DataError, TokenizerError
from scratchlm.core.files import new_folder, read_json, write_json
from scratchlm.data.document_split import SIDES, Route, SplitBy, Survey, survey_sources
from scratchlm.data.file_facts import file_sha256
from scratchlm.data.nanogpt import nanogpt_header, nanogpt_tokenizer
from scratchlm.data.parallel_encoding import Job, encode_jobs
from scratchlm.data.row_files import RowSettings
from scratchlm.data.sources import Piece, find_sources, read_pieces, source_kind
from scratchlm.tokenizers.files import load_tokenizer

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer

logger = logging.getLogger(__name__)

HEADER_FILE = "header.json"
FORMAT = "scratchlm-tokens"
FORMAT_VERSION = 1
PARALLEL_FROM_BYTES = 8 << 20  # below this size, starting processes takes longer than it saves
MAX_WORKERS = 8  # default maximum: a worker takes about 70 MB, and all together stay below 1 GB

Progress = Callable[[int, int], None]  # bytes of text done, bytes of text in total


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTokens:
    """Memory-mapped token ids of training and validation, and statistics of their text."""

    train: NDArray[Any]
    val: NDArray[Any]
    n_documents: int
    train_n_bytes: int  # of UTF-8 text, for bits per byte
    val_n_bytes: int
    skipped_lines: int
    fingerprint: str
    folder: Path
    train_n_characters: int | None = None  # None in folders of an older version


def prepare_tokens(
    data: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer,
    *,
    cache_folder: str | Path,
    val_fraction: float = 0.1,
    split_by: SplitBy = "auto",
    rows: RowSettings | None = None,
    document_separator: str = "",
    workers: int | None = None,
    skip_bad_lines: bool = False,
    survey: Survey | None = None,
    progress: Progress | None = None,
) -> PreparedTokens:
    """Return the data's token ids, split into training and validation: from the cache, or tokenised now.

    Documents are joined with end-of-text. `workers` processes encode (None: one per core, at most 8); small inputs
    are encoded in this process. val_fraction 0 leaves validation empty. `data` may also be one token folder.
    survey: the result of `survey_sources` for the same data, if it was read before.
    Units: progress(done, total) counts bytes of text.
    Raises: DataError as `read_pieces` and `Route.plan` do, for several documents without an end-of-text token,
        and for a token folder of another tokenizer; ConfigError for wrong settings.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}; leave it out for one per core.")
    given = token_folder(data)
    if given is not None:
        return open_tokens(given, tokenizer)
    files, rows = find_sources(data), rows or RowSettings()
    # Default settings are left out of the request, so that folders of older versions stay valid.
    more = {"document_separator": document_separator, "encoding": rows.encoding, "delimiter": rows.delimiter}
    request = {
        "format_version": FORMAT_VERSION,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "source_sha256": _source_fingerprint(files),
        "split_by": split_by,
        "val_fraction": val_fraction,
        "text_field": rows.text_column,
        "skip_bad_lines": skip_bad_lines,
    } | {name: value for name, value in more.items() if value}
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    folder = Path(cache_folder) / f"tokens-{fingerprint[:16]}"
    if folder.exists():
        try:
            tokens = open_tokens(folder)
        except DataError as damage:
            logger.warning("tokenising again, because %s", damage)
        else:
            _warn_of_skipped_lines(folder)
            return tokens

    read = functools.partial(
        read_pieces, files, rows=rows, document_separator=document_separator, skip_bad_lines=skip_bad_lines
    )
    header = request | {"fingerprint": fingerprint}
    _build(folder, read, tokenizer, header=header, survey=survey, workers=workers, progress=progress)
    _warn_of_skipped_lines(folder)
    return open_tokens(folder)


def _build(
    folder: Path,
    read: Callable[..., Iterator[Piece]],
    tokenizer: Tokenizer,
    *,
    header: dict[str, Any],
    survey: Survey | None,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Read the text to plan the split, unless `survey` is given, and again to encode it."""
    survey = survey or survey_sources(read)
    header |= {
        "n_documents": len(survey.sizes),
        "skipped_lines": survey.n_skipped,
        "first_skipped": survey.first_skipped,
    }
    route = Route.plan(survey, split_by=header["split_by"], val_fraction=header["val_fraction"])
    remove_partials(folder.parent)  # left by killed builds
    with new_folder(folder) as partial:
        n_written = _write_folder(
            partial,
            route.jobs(read(on_skip=lambda _: None)),
            tokenizer,
            header,
            n_workers=_n_workers(workers, survey.n_bytes),
            report=lambda done: progress(done, survey.n_bytes) if progress is not None else None,
        )
        if n_written != survey.n_bytes:
            raise DataError(
                f"the data changed while it was read: {survey.n_bytes} bytes of text at first and {n_written} later; "
                "try again."
            )


def _warn_of_skipped_lines(folder: Path) -> None:
    """Log warnings once per request, also when the tokens come from the cache."""
    header = read_json(folder / HEADER_FILE)
    if header["skipped_lines"]:
        logger.warning(
            "skipped %d lines that could not be used; the first: %s",
            header["skipped_lines"],
            header.get("first_skipped") or "not known",
        )


def open_tokens(folder: str | Path, tokenizer: Tokenizer | None = None) -> PreparedTokens:
    """Open a token folder, ours or nanoGPT's; its arrays are memory-mapped.

    tokenizer: the tokenizer that must have produced the ids; None accepts any.
    Raises: DataError when a file is missing, damaged, truncated, of an unknown format or of another
        tokenizer.
    """
    folder = Path(folder)
    if is_nanogpt(folder):
        return _prepared(folder, nanogpt_header(folder, tokenizer or nanogpt_tokenizer(folder)))
    header = read_json(folder / HEADER_FILE)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{folder / HEADER_FILE} does not describe token shards; remove it.")
    if header.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{folder} must hold token shards of format {FORMAT_VERSION}, got "
            f"{header.get('format_version')!r}; tokenise the text again."
        )
    if tokenizer is not None and header.get("tokenizer_fingerprint") != tokenizer.fingerprint:
        raise DataError(
            f"{folder} must hold ids of the tokenizer in use, got another tokenizer's; use its tokenizer.json or "
            "tokenise the text again."
        )
    return _prepared(folder, header)


def tokenizer_of_tokens(folder: Path) -> Tokenizer:
    """Load the tokenizer that produced a token folder's ids.

    Raises: DataError when the folder lacks it; TokenizerError when it is damaged.
    """
    if is_nanogpt(folder):
        return nanogpt_tokenizer(folder)
    if not (folder / "tokenizer.json").is_file():
        raise DataError(
            f"{folder} has token shards but not the tokenizer.json that made them; name it with --tokenizer.path."
        )
    return load_tokenizer(folder / "tokenizer.json")


def is_nanogpt(folder: Path) -> bool:
    """Whether a folder holds nanoGPT's token files."""
    return (folder / "train.bin").is_file() and not (folder / HEADER_FILE).is_file()


def _prepared(folder: Path, header: Mapping[str, Any]) -> PreparedTokens:
    try:
        sides = {side: _open_side(folder, header[side], np.dtype(header["dtype"])) for side in SIDES}
        return PreparedTokens(
            train=sides["train"],
            val=sides["val"],
            n_documents=header["n_documents"],
            train_n_bytes=header["train"]["n_bytes"],
            val_n_bytes=header["val"]["n_bytes"],
            skipped_lines=header["skipped_lines"],
            fingerprint=header["fingerprint"],
            folder=folder,
            train_n_characters=header["train"].get("n_characters"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as cause:
        if isinstance(cause, DataError):
            raise
        raise DataError(
            f"{folder / HEADER_FILE} has a wrong or missing value ({cause}); tokenise the text again."
        ) from cause


def _open_side(folder: Path, entry: dict[str, Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    path = folder / str(entry["file"])
    size_bytes = path.stat().st_size if path.is_file() else -1
    if size_bytes != entry["n_tokens"] * dtype.itemsize:
        raise DataError(
            f"{path} must have {entry['n_tokens'] * dtype.itemsize} bytes for {entry['n_tokens']} tokens, got "
            f"{size_bytes if size_bytes >= 0 else 'no'} bytes; tokenise the text again."
        )
    if file_sha256(path) != entry["sha256"]:
        raise DataError(f"{path} does not match its checksum; tokenise the text again.")
    if entry["n_tokens"] == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def token_folder(data: str | Path | Sequence[str | Path]) -> Path | None:
    """The token folder that `data` names, ours or nanoGPT's; None for text.

    Raises: DataError for token shards together with other paths.
    """
    named = [Path(path) for path in ([data] if isinstance(data, (str, Path)) else data)]
    folders = [path.parent if path.suffix == ".bin" or path.name == HEADER_FILE else path for path in named]
    shards = [folder for folder in folders if (folder / HEADER_FILE).is_file() or is_nanogpt(folder)]
    if shards and len(set(folders)) > 1:
        raise DataError(
            f"token shards must be the only data, got {shards[0]} and {len(folders) - 1} more; name it alone, or name "
            "the texts it was made of."
        )
    return shards[0] if shards else None


def _source_fingerprint(files: Sequence[Path]) -> str:
    """Hash the contents of the files in their order, independent of names and folders."""
    contents = [[source_kind(path), path.suffix == ".gz", file_sha256(path)] for path in files]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()


def _write_folder(
    folder: Path,
    jobs: Iterator[Job],
    tokenizer: Tokenizer,
    header: dict[str, Any],
    *,
    n_workers: int,
    report: Callable[[int], None],
) -> int:
    """Encode the jobs into the folder, and write the header last; returns the bytes of text encoded."""
    tokenizer_file = folder / "tokenizer.json"
    tokenizer.save(tokenizer_file)
    if n_workers > 1 and not _loads_as_saved(tokenizer, tokenizer_file):
        logger.info("workers cannot load this tokenizer from its file; encoding in one process")
        n_workers = 1
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    counts = {side: Counter(n_tokens=0, n_documents=0, n_bytes=0, n_characters=0) for side in SIDES}
    digests = {side: hashlib.sha256() for side in SIDES}
    n_done = 0
    with ExitStack() as stack:
        files = {side: stack.enter_context((folder / f"{side}.bin").open("wb")) for side in SIDES}
        encoded = encode_jobs(
            jobs, tokenizer, tokenizer_file=tokenizer_file, dtype=dtype, n_workers=n_workers
        )
        stack.callback(encoded.close)
        for job, ids in encoded:
            data = ids.tobytes()
            files[job.side].write(data)
            counts[job.side]["n_tokens"] += len(ids)
            for name in ("n_documents", "n_bytes", "n_characters"):
                counts[job.side][name] += getattr(job, name)
            digests[job.side].update(data)
            n_done += job.n_bytes
            report(n_done)
    entries = {
        side: {"file": f"{side}.bin", **counts[side], "sha256": digests[side].hexdigest()} for side in SIDES
    }
    write_json(folder / HEADER_FILE, {"format": FORMAT, "dtype": dtype.str} | header | entries)
    return n_done


def _loads_as_saved(tokenizer: Tokenizer, tokenizer_file: Path) -> bool:
    try:
        return load_tokenizer(tokenizer_file).fingerprint == tokenizer.fingerprint
    except TokenizerError:  # a caller's tokenizer class with its own file format
        return False


def _n_workers(workers: int | None, n_bytes: int) -> int:
    if n_bytes < PARALLEL_FROM_BYTES:
        return 1
    if workers is not None:
        return workers
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n_cores, MAX_WORKERS)
