"""Lines typed at a prompt, kept in a file so that the arrow keys find them the next time."""

import contextlib
import json
from pathlib import Path

from scratchlm.core.errors import DataError
from scratchlm.core.files import new_file

try:
    import readline
except ImportError:  # Windows has none; its terminal edits lines and recalls them itself
    HAS_READLINE = False
else:
    HAS_READLINE = True

N_KEPT = 1000  # lines; the file is shortened to so many when it has twice as many


class LineHistory:
    """The lines for readline to recall, and their file: one JSON string a line, since a pasted text has several lines.

    Only the user can read the file, because a conversation is private.
    Raises: DataError when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        readline.set_auto_history(False)
        readline.clear_history()
        lines = self._read()
        if len(lines) > 2 * N_KEPT:
            lines = lines[-N_KEPT:]
            with new_file(path) as partial:
                partial.touch(mode=0o600)
                partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        for line in lines[-N_KEPT:]:
            readline.add_history(line)
        self._last = lines[-1] if lines else ""

    def add(self, line: str) -> None:
        """Add a typed line, unless it is blank or repeats the last one."""
        if not line.strip() or line == self._last:
            return
        readline.add_history(line)
        self._last = line
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as cause:
            raise self._error("written", cause) from cause

    def _read(self) -> list[str]:
        lines: list[str] = []
        try:
            written = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as cause:
            raise self._error("read", cause) from cause
        for line in written:
            with contextlib.suppress(ValueError):  # a line that another process was writing
                lines += [text for text in [json.loads(line)] if isinstance(text, str)]
        return lines

    def _error(self, what: str, cause: OSError) -> DataError:
        return DataError(
            f"{self.path}, the history of typed lines, could not be {what}: {cause.strerror or cause}; set "
            "SCRATCHLM_HOME to a folder that you can write to."
        )
