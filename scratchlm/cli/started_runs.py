"""Start and stop runs for the page of `scratchlm serve`; each is a command of its own and survives the server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scratchlm.cli.stage_runs import free_run
from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import ask_to_stop, running_process
from scratchlm.reports.found_runs import FoundRun, find_runs

RECIPE = "quickstart"
NICENESS = 10  # the server answers first


@dataclass(frozen=True, kw_only=True)
class _Started:
    name: str
    process: subprocess.Popen[bytes]
    log: Path  # what the command writes
    started_at: float  # seconds since 1970

    def problem(self) -> str:
        """The last line that the command wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


class StartedRuns:
    """Starts quickstarts in the runs folder, one at a time, and stops any run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: _Started | None = None
        self._asked: set[tuple[str, int]] = set()  # that are stopping: a second signal would end them unsaved
        self._changes = threading.Lock()

    def start(self, *, seed: int | None) -> str:
        """Start a quickstart in a new folder; returns its name.

        Raises: ConfigError while a run in the folder is being trained, or when none can be started.
        """
        with self._changes:
            busy = self._busy()
            if busy is not None:
                raise ConfigError(
                    f"{busy} is being trained, and two at once take longer than one after the other; wait, or stop it."
                )
            flags = [] if seed is None else ["--seed", str(seed)]
            self._last = _started(self.folder, free_run(RECIPE, self.folder).name, flags)
            return self._last.name

    def stop(self, name: str) -> bool:
        """Ask a run to save and stop; False when no run of that name is running.

        Raises: ConfigError when its process cannot be stopped from here.
        """
        with self._changes:
            last = self._last
            if last is not None and last.name == name and last.process.poll() is None:
                if (name, last.process.pid) not in self._asked:
                    last.process.terminate()
                    self._asked.add((name, last.process.pid))
                return True
            path = next((run.path for run in self._running() if run.name == name), None)
            process = None if path is None else running_process(path)
            if path is None or process is None:
                return False
            if (name, process) not in self._asked:
                if not ask_to_stop(path):
                    return False
                self._asked.add((name, process))
            return True

    def pending(self) -> list[dict[str, Any]]:
        """The run that was started last, while it has no folder; failed, if it ended without one."""
        last = self._last
        if last is None or (self.folder / last.name / "recipe.toml").exists():
            return []
        code = last.process.poll()
        if code == 0 or (last.name, last.process.pid) in self._asked:
            return []
        return [
            {
                "name": last.name,
                "state": "starting" if code is None else "failed",
                "problem": "" if code is None else last.problem(),
                "made_by": f"run {RECIPE}",
                "stages": [],
                "step": None,
                "figures": {},
                "metrics": {},
                "size_bytes": 0,
                "changed_at": last.started_at,
            }
        ]

    def _running(self) -> list[FoundRun]:
        runs = find_runs(self.folder) if self.folder.is_dir() else []
        return [run for run in runs if run.state == "running"]

    def _busy(self) -> str | None:
        if self._last is not None and self._last.process.poll() is None:
            return self._last.name
        return next((run.name for run in self._running()), None)


def _started(folder: Path, name: str, flags: list[str]) -> _Started:
    log = folder / f".{name}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "scratchlm", "run", RECIPE, "--out", str(folder / name), *flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C for the server does not reach it
            )
    except OSError as cause:
        raise ConfigError(f"the run could not be started: {cause}; use `scratchlm run`.") from cause
    if sys.platform != "win32":
        with contextlib.suppress(psutil.Error):  # it has ended already; pending() says why
            psutil.Process(process.pid).nice(NICENESS)
    return _Started(name=name, process=process, log=log, started_at=time.time())
