"""Run scratchlm commands in processes of their own, and the words of the small texts they work on."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

WORDS = [
    "cat",
    "dog",
    "bird",
    "mouse",
    "sat",
    "ran",
    "slept",
    "on",
    "under",
    "the",
    "mat",
    "log",
    "tree",
    "saw",
]


def one_thread(home: Path) -> dict[str, str]:
    """The environment of a command that computes with one thread and has its cache in `home`."""
    threads = {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # a pool of threads does not survive a fork
    return {**os.environ, "SCRATCHLM_HOME": str(home), **threads}


def start_python(
    *args: str, here: Path | None = None, env: Mapping[str, str] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start Python with these arguments in a folder; its output is text in pipes unless `stdout` says otherwise."""
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=here,
        env=None if env is None else dict(env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_command(args: Sequence[str], *, here: Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start `scratchlm ARGS` in a folder that holds its cache too."""
    return start_python("-m", "scratchlm", *args, here=here, env=one_thread(here / "home"), stdout=stdout)
