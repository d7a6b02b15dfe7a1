"""Run a program in a pseudo-terminal and type into it."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path


class TypedProgram:
    """A Python program whose standard input, output and error are one terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self.shown = ""  # everything so far
        self._terminal = terminal
        self._n_seen = 0

    def type(self, keys: str) -> None:
        """Send keys as they are; Enter is a carriage return."""
        os.write(self._terminal, keys.encode())

    def read(self, timeout_s: float) -> bool:
        """Wait for anything new in `shown`; returns whether there is."""
        ready, _, _ = select.select([self._terminal], [], [], timeout_s)
        if ready:
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        return bool(ready)

    def wait_for(self, text: str, *, timeout_s: float = 60.0) -> str:
        """Wait until the program shows this text; returns what was shown since the last wait, up to its end."""
        ends_at_s = time.monotonic() + timeout_s
        while text not in self.shown[self._n_seen :]:
            is_new = self.read(max(0.0, ends_at_s - time.monotonic()))
            assert is_new, f"no {text!r} in {timeout_s} s, shown: {self.shown[self._n_seen :]!r}"
        begin, self._n_seen = self._n_seen, self.shown.index(text, self._n_seen) + len(text)
        return self.shown[begin : self._n_seen]


@contextlib.contextmanager
def typed_into(*args: str, here: Path, env: Mapping[str, str]) -> Iterator[TypedProgram]:
    """Start Python with these arguments in a terminal of its own; it is ended with the block."""
    ours, theirs = os.openpty()
    environment = {**env, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, *args],
        cwd=here,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield TypedProgram(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
