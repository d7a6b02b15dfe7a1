"""A mark in a folder that says which process is at work there, so that no second one joins in."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from scratchlm.core.errors import ConfigError
from scratchlm.core.files import write_text

MARK = ".running.json"


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Mark a folder as this process's for as long as the block takes.

    A mark that a killed process left behind is told by its process, which is gone, and is replaced.
    Raises: ConfigError when another process is at work there.
    """
    refuse_busy(folder)
    is_nested = running_process(folder) is not None
    if not is_nested:
        write_text(folder / MARK, json.dumps(_this_process()) + "\n")
    try:
        yield
    finally:
        if not is_nested:
            (folder / MARK).unlink(missing_ok=True)


def refuse_busy(folder: Path) -> None:
    """Make sure that no other process is at work in a folder, which need not exist.

    Raises: ConfigError naming the process.
    """
    other = running_process(folder)
    if other is not None and other != os.getpid():
        raise ConfigError(
            f"{folder} should be free, found process {other} at work in it; wait for it, stop it, or choose another "
            "folder."
        )


def running_process(folder: Path) -> int | None:
    """The id of the process at work in a folder; None when there is none, or it has died.

    A process on another machine cannot be seen from here: it counts as dead, or a container that is started anew
    could never take up its own run.
    """
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        pid, host, started_at = int(mark["pid"]), mark["host"], float(mark["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if host != platform.node():
        return None
    try:
        is_same = abs(psutil.Process(pid).create_time() - started_at) < 2  # ids are given out again
    except psutil.Error:
        return None
    return pid if is_same else None


def _this_process() -> dict[str, object]:
    process = psutil.Process()
    return {"pid": process.pid, "host": platform.node(), "started_at": process.create_time()}
