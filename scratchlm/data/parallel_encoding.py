"""Encode a stream of texts with several processes, in order and in bounded memory.

The parent reads and the workers encode; only a few jobs are pending at a time, so memory does not grow with
the text. Workers are started with `spawn` (the same on every system) and load the tokenizer from its file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scratchlm.core.errors import DataError
from scratchlm.tokenizers.files import load_tokenizer

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


@dataclass(slots=True)
class Job:
    """Texts to encode in order; where `joins` is True, end-of-text is inserted before the text."""

    side: str  # which file the ids belong to
    texts: list[str] = field(default_factory=list)
    joins: list[bool] = field(default_factory=list)
    n_documents: int = 0  # how many begin in this job
    n_bytes: int = 0
    n_characters: int = 0

    def add(self, text: str, *, is_start: bool, joins: bool) -> None:
        """Append a text; is_start: a document begins with it."""
        self.texts.append(text)
        self.joins.append(joins)
        self.n_documents += is_start
        self.n_characters += len(text)
        self.n_bytes += len(text) if text.isascii() else len(text.encode("utf-8"))


def encode_jobs(
    jobs: Iterable[Job],
    tokenizer: Tokenizer,
    *,
    tokenizer_file: Path,
    dtype: np.dtype[np.generic],
    n_workers: int,
) -> Generator[tuple[Job, NDArray[np.generic]], None, None]:
    """Yield each job with its ids, in order; one worker means this process.

    Raises: DataError when a worker dies; any error of the tokenizer.
    """
    if n_workers == 1:
        for job in jobs:
            yield job, encode_job(job, tokenizer, dtype)
        return
    engine: Literal["python", "tiktoken"] = getattr(tokenizer, "engine", "python")  # same as in this process
    pool = ProcessPoolExecutor(
        n_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(str(tokenizer_file), engine, dtype.str),
    )
    pending: deque[tuple[Job, Future[NDArray[np.generic]]]] = deque()
    try:
        for job in jobs:
            pending.append((job, pool.submit(_encode_in_worker, job)))
            if len(pending) > 2 * n_workers:  # enough to keep the workers busy, few enough for memory
                done, ids = pending.popleft()
                yield done, ids.result()
        while pending:
            done, ids = pending.popleft()
            yield done, ids.result()
    except BrokenProcessPool as cause:
        raise DataError(
            "a process that encodes text died: memory ran out, or the calling script lacks "
            "`if __name__ == '__main__':`; add that line or set workers=1."
        ) from cause
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encode_job(job: Job, tokenizer: Tokenizer, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    """The ids of a job's texts as one array; a special token's string in a text never becomes its id."""
    ids: list[int] = []
    for text, joins in zip(job.texts, job.joins):
        if joins:
            ids.append(_end_of_text_id(tokenizer))
        ids.extend(tokenizer.encode(text))
    return np.array(ids, dtype=dtype)


def _end_of_text_id(tokenizer: Tokenizer) -> int:
    if tokenizer.end_of_text_id is None:
        raise DataError(
            "several documents need an end-of-text token between them, and the tokenizer has none; train it with "
            "<|endoftext|>, or give one document only."
        )
    return tokenizer.end_of_text_id


# State that a worker process keeps between jobs; unused in the parent.
_worker: dict[str, tuple[Tokenizer, np.dtype[np.generic]]] = {}


def _start_worker(tokenizer_file: str, engine: Literal["python", "tiktoken"], dtype: str) -> None:
    # Ctrl-C reaches the whole process group; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker["state"] = (load_tokenizer(tokenizer_file, engine=engine), np.dtype(dtype))


def _end_with_parent() -> None:
    """Exit when the parent ends: otherwise the workers of a killed parent would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _encode_in_worker(job: Job) -> NDArray[np.generic]:
    tokenizer, dtype = _worker["state"]
    return encode_job(job, tokenizer, dtype)
