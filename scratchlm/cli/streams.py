"""Standard input, output and error as text: input must be UTF-8, output cannot control the terminal."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from scratchlm.core.errors import DataError
from scratchlm.core.printable import printable

BYTE_ORDER_MARK = "\ufeff"


class PrintableStream(io.TextIOBase):
    """A text stream that wraps another one and shows control characters instead of sending them."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        """Write the text with its control characters made visible."""
        self.behind.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Flush the wrapped stream."""
        self.behind.flush()

    def fileno(self) -> int:
        """The file descriptor of the wrapped stream."""
        return self.behind.fileno()

    def isatty(self) -> bool:
        """Whether the wrapped stream is a terminal."""
        return self.behind.isatty()

    def writable(self) -> bool:
        """Always true."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the wrapped stream."""
        return self.behind.encoding


def behind(stream: TextIO) -> TextIO:
    """The stream that accepts terminal styles: the given one, or the one that a PrintableStream wraps."""
    return stream.behind if isinstance(stream, PrintableStream) else stream


def read_text() -> str:
    """Read all of standard input, without the byte-order mark that Windows programs write first.

    Raises: DataError when standard input is closed or not UTF-8.
    """
    with input_errors_explained():
        return sys.stdin.read().removeprefix(BYTE_ORDER_MARK)


def read_piped_prompt() -> str:
    """Read a prompt from standard input, without the line end that `echo` and most editors put after it."""
    return read_text().removesuffix("\n").removesuffix("\r")


def read_lines() -> Iterator[str]:
    """Yield the lines of standard input as they arrive, without line ends and without a leading byte-order mark.

    Raises: DataError when standard input is closed or not UTF-8.
    """
    mark = BYTE_ORDER_MARK
    while True:
        with input_errors_explained():
            line = sys.stdin.readline().removeprefix(mark)
        if not line:
            return
        yield line.rstrip("\r\n")
        mark = ""


@contextlib.contextmanager
def input_errors_explained() -> Iterator[None]:
    """Within the block, standard input is read strictly.

    Raises: DataError when it is closed or not UTF-8.
    """
    if sys.stdin is None:  # closed by the caller: `<&-`
        raise DataError("standard input is closed, so there is no text to read; pipe the text in.")
    if getattr(sys.stdin, "errors", "strict") != "strict" and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # in the C locale Python would accept invalid bytes
    try:
        yield
    except UnicodeDecodeError as cause:
        raise DataError(
            f"standard input is not {cause.encoding} text: byte 0x{cause.object[cause.start]:02x} "
            f"({cause.reason}); convert it first, e.g. `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from cause
