"""Read a user's messages: typed in a terminal, with editing and history, or from a pipe."""

import contextlib
import itertools
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from types import FrameType
from typing import NamedTuple

from rich.console import Console

from scratchlm.assets.cache_folder import cache_folder
from scratchlm.cli.line_history import HAS_READLINE, LineHistory
from scratchlm.cli.streams import behind, input_errors_explained, read_lines
from scratchlm.core.errors import DataError

PROMPT, CONTINUED = "you> ", "...> "
QUOTES = '"""'
MULTI_LINE = (
    f'A line that ends with "\\" continues on the next; lines between two lines of {QUOTES} are one message.'
)


class _LineDroppedError(Exception):
    """Ctrl-C while a line is typed."""


class Message(NamedTuple):
    """What a user has entered."""

    text: str
    is_command: bool  # it begins with "/", outside a block


class MessageReader:
    """Reads messages from standard input; in a terminal it shows a prompt, and lines can be edited and recalled.

    A line that ends with a backslash continues on the next line, and all lines between two lines of three quotes are
    one message, whatever they begin with. A text pasted into a terminal that marks pasted text is one message, too.
    Where lines are edited, Ctrl-C drops what was typed.
    """

    def __init__(self, console: Console) -> None:
        self.is_typed = sys.stdin is not None and sys.stdin.isatty()
        self._console = console
        self._lines = read_lines()
        self._history: LineHistory | None = None
        self._edits = (
            self.is_typed and HAS_READLINE and sys.stdout is not None and behind(sys.stdout).isatty()
        )
        if self._edits:
            try:
                self._history = LineHistory(cache_folder() / "chat_history.jsonl")
            except DataError as error:
                console.print(f"note: {error}")

    def read(self) -> Message | None:
        """The next message; None at the end of the input, or for an empty message.

        Raises: DataError when standard input is closed or not UTF-8.
        """
        while True:
            try:
                return self._message()
            except _LineDroppedError:
                self._console.print("\nAn empty line or Ctrl-D ends the chat.")

    def _message(self) -> Message | None:
        first, is_command = self._line(PROMPT), False
        if first is None:
            return None
        if "\n" in first:  # pasted
            text = first.strip().removeprefix(f"{QUOTES}\n").removesuffix(f"\n{QUOTES}")
        elif first.strip() == QUOTES:
            following = iter(lambda: self._line(CONTINUED), None)  # until the end of the input
            text = "\n".join(itertools.takewhile(lambda line: line.strip() != QUOTES, following))
        else:
            text = self._continued(first).strip()
            is_command = text.startswith("/")
        return Message(text, is_command) if text.strip() else None

    def _continued(self, text: str) -> str:
        """A line, and those that follow while each ends with a backslash."""
        while text.endswith("\\"):
            following = self._line(CONTINUED)
            if following is None:
                return text
            text = f"{text[:-1]}\n{following}"
        return text

    def _line(self, prompt: str) -> str | None:
        if self._edits:
            return self._edited_line(prompt)
        if self.is_typed:
            self._console.print(prompt, end="", style="bold")
        return next(self._lines, None)

    def _edited_line(self, prompt: str) -> str | None:
        # `input` edits lines only on the process's own output, which a PrintableStream hides.
        with redirect_stdout(behind(sys.stdout)), input_errors_explained(), _ctrl_c_drops_the_line():
            try:
                line = input(prompt)
            except EOFError:
                print()
                return None
        if self._history is not None:
            try:
                self._history.add(line)
            except DataError as error:
                self._history = None
                self._console.print(f"note: {error}")
        return line


@contextlib.contextmanager
def _ctrl_c_drops_the_line() -> Iterator[None]:
    def drop(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise _LineDroppedError

    if threading.current_thread() is not threading.main_thread():  # others receive no signals
        yield
        return
    earlier = signal.signal(signal.SIGINT, drop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
