"""How many CPU threads a run uses: as many as it began with, else as many as there are idle cores."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from scratchlm.checkpoints.store import MANIFEST, list_checkpoints
from scratchlm.core.errors import ScratchLMError
from scratchlm.core.json_table import read_json_table

SAMPLE_S = 0.5


def idle_threads(sample_s: float = SAMPLE_S) -> int:
    """PyTorch's number of threads, but no more than cores that other programs leave idle; at least 1.

    At each step all threads wait for the slowest. Beside one busy program, two threads on two cores train the
    quickstart's model at 6,400 tokens/s, one at 8,800 (14,000 with both cores idle).
    """
    busy_cores = sum(psutil.cpu_percent(sample_s, percpu=True)) / 100
    idle_cores: int = round(psutil.cpu_count() - busy_cores)
    return max(1, min(torch.get_num_threads(), idle_cores))


def earlier_threads(folders: Iterable[Path]) -> int | None:
    """The number of threads that wrote the newest readable checkpoint of these folders; None without one.

    A run resumes with it, since another number rounds differently.
    """
    for folder in folders:
        for checkpoint in reversed(list_checkpoints(folder)):
            with suppress(ScratchLMError):  # a damaged checkpoint is reported by what resumes from it
                versions = read_json_table(checkpoint / MANIFEST).get("versions", dict, {})
                if str(n_threads := versions.get("threads", "")).isdecimal():
                    return max(1, int(n_threads))
    return None
