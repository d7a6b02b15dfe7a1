"""Standard output and standard error as streams that show control characters instead of sending them."""

from __future__ import annotations

import io
from typing import TextIO

from scratchlm.core.printable import printable


class PrintableStream(io.TextIOBase):
    """A text stream in front of another one; nothing written to it can steer a terminal."""

    def __init__(self, behind: TextIO) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        """Write the text, harmless."""
        self.behind.write(printable(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what the stream behind still holds."""
        self.behind.flush()

    def fileno(self) -> int:
        """The descriptor of the stream behind."""
        return self.behind.fileno()

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self.behind.isatty()

    def writable(self) -> bool:
        """Yes."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream behind."""
        return self.behind.encoding


def behind(stream: TextIO) -> TextIO:
    """The stream that takes styles, whether or not a PrintableStream stands before it."""
    return stream.behind if isinstance(stream, PrintableStream) else stream
