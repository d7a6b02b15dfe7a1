"""Run scratchlm's commands in forks of one process that has imported everything, and send them signals."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.processes import one_thread
from tests.ranks import free_port

PATIENCE_S = 120.0  # for a process on a busy machine

# A process that has imported everything and computed nothing: it reads a command per line of JSON, forks a child for it
# (or one per rank, which train together) and prints the children's process ids, then their exit codes. So torch is
# imported once.
LAUNCHER = """
import importlib, json, os, sys
from scratchlm.cli.main import main
for name in ("pretrain", "finetune_classify", "finetune_prefer", "run"):
    importlib.import_module(f"scratchlm.cli.{name}")
for line in sys.stdin:
    order, children = json.loads(line), []
    for rank in range(order["n_ranks"]):
        children.append(os.fork())
        if children[-1] == 0:
            os.chdir(order["here"])
            os.environ["SCRATCHLM_HOME"] = os.path.join(order["here"], "home")
            if order["n_ranks"] > 1:
                os.environ.update(order["group"], RANK=str(rank), LOCAL_RANK=str(rank))
            for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
                name += f"-{rank}" if rank else ""
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
            exec(order["first"])
            code = main(order["args"])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(json.dumps(children), flush=True)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Commands:
    """Runs scratchlm in processes of their own, one at a time, in one working folder."""

    def __init__(self, here: Path, launcher: subprocess.Popen[bytes]) -> None:
        self.here = here
        self.launcher = launcher
        self.running: list[int] = []  # the process ids of a command that has not been waited for

    def start(self, command: str, *, first: str = "", n_ranks: int = 1) -> None:
        """Begin a command, after some code in its process, or in several processes that train together."""
        assert not self.running, "one at a time"
        assert self.launcher.stdin is not None
        order = {"here": str(self.here), "args": command.split(), "first": first, "n_ranks": n_ranks}
        order["group"] = {
            "WORLD_SIZE": str(n_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        self.launcher.stdin.write(json.dumps(order).encode() + b"\n")
        self.launcher.stdin.flush()
        self.running = self._answer()

    def wait(self) -> int:
        """The exit code of the command that was started, negative for a signal; its output lies in files."""
        code, *_ = self._answer()
        self.running = []
        return code

    def send(self, number: signal.Signals) -> None:
        """A signal to the command that was started."""
        os.kill(self.running[0], number)

    def kill(self, rank: int) -> None:
        """SIGKILL to a process of the command that was started; it may have ended with another one."""
        with suppress(ProcessLookupError):
            os.kill(self.running[rank], signal.SIGKILL)

    def finish(self, command: str, *, first: str = "") -> dict[str, Any]:
        """Run a command with --json, which must succeed; returns what it printed."""
        self.start(f"{command} --json", first=first)
        code = self.wait()
        assert code == 0, self.stderr
        found = json.loads((self.here / "stdout").read_text())
        assert isinstance(found, dict)
        return found

    def kill_when(self, command: str, is_time: Callable[[], bool]) -> None:
        """Run a command and kill it with SIGKILL as soon as `is_time`."""
        self.start(command)
        self.wait_until(is_time)
        self.send(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, "it had ended before it could be killed"

    def wait_until(self, is_time: Callable[[], bool]) -> None:
        """Look every millisecond; a process that ends first, or never gets there, fails the test."""
        give_up_at_s = time.monotonic() + PATIENCE_S
        while not is_time():
            assert not self.has_ended_within(0.001), self.stderr
            assert time.monotonic() < give_up_at_s, "it never got there"

    @property
    def stderr(self) -> str:
        """What the last command said on standard error."""
        return (self.here / "stderr").read_text()

    def has_ended_within(self, timeout_s: float) -> bool:
        """Whether the command that was started ends within this time."""
        return bool(select.select([self.launcher.stdout], [], [], timeout_s)[0])

    def _answer(self) -> list[int]:
        assert self.has_ended_within(PATIENCE_S), "the launcher does not answer"
        assert self.launcher.stdout is not None
        answer = b""
        while not answer.endswith(b"\n"):
            byte = os.read(self.launcher.stdout.fileno(), 1)  # unbuffered: select must see what is left
            assert byte, "the launcher has ended"
            answer += byte
        return list(json.loads(answer))

    def has_lines(self, file: str, n: int) -> Callable[[], bool]:
        """Has a log grown to so many lines?"""
        path = self.here / file
        return lambda: path.exists() and path.read_bytes().count(b"\n") >= n


def start_launcher() -> subprocess.Popen[bytes]:
    """The process that begins the others."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER],
        env=one_thread(Path()),  # each order names a home of its own
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
