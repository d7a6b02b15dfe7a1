"""Standard input as text: whole, or line by line."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator

from scratchlm.core.errors import DataError

BYTE_ORDER_MARK = "\ufeff"


def read_text() -> str:
    """All of standard input, without the byte-order mark that Windows' programs begin with.

    Raises: DataError when it is closed or no text.
    """
    with _complaints():
        return sys.stdin.read().removeprefix(BYTE_ORDER_MARK)


def read_lines() -> Iterator[str]:
    """The lines of standard input without their ends, as they come, and without a byte-order mark before the first.

    Raises: DataError when it is closed or no text.
    """
    mark = BYTE_ORDER_MARK
    while True:
        with _complaints():
            line = sys.stdin.readline().removeprefix(mark)
        if not line:
            return
        yield line.rstrip("\r\n")
        mark = ""


@contextlib.contextmanager
def _complaints() -> Iterator[None]:
    if sys.stdin is None:  # closed by the caller: `<&-`
        raise DataError("standard input should hold text, found it closed; pipe the text in.")
    if getattr(sys.stdin, "errors", "strict") != "strict" and isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # in the C locale Python would let broken bytes through
    try:
        yield
    except UnicodeDecodeError as cause:
        raise DataError(
            f"standard input must be {cause.encoding} text, found byte 0x{cause.object[cause.start]:02x} "
            f"({cause.reason}); convert it first, e.g. `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from cause
