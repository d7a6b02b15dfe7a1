"""Files of text as they are met: zipped or not, in UTF-8 or in another encoding that is marked or named.

What a file is, its content decides, never its name: gzip is unzipped, a byte-order mark is believed, and what is no
text at all is called by its name.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.file_kinds import GZIP_MAGIC, HEAD_BYTES, foreign_kind, marked_encoding, not_text

READ_BYTES = 1 << 20


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, unzipped when they are gzip, or when its name says so.

    Raises: DataError when the file is missing, cannot be read, or is no whole gzip file.
    """
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            if path.suffix == ".gz" or file.peek(2).startswith(GZIP_MAGIC):
                yield cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file)))
            else:
                yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise DataError(
            f"{path} must be a whole gzip file, got: {cause}; copy or download it again."
        ) from cause
    except OSError as cause:
        raise DataError(
            f"{path} must be a readable file, got: {cause.strerror or cause}; check the path."
        ) from cause


def head_of(path: Path) -> bytes:
    """A file's first bytes, unzipped.

    Raises: DataError as `opened` does.
    """
    with opened(path) as file:
        return file.read(HEAD_BYTES)


def checked_encoding(name: str) -> str:
    """An encoding by any of Python's names for it.

    Raises: ConfigError for a name that is no encoding of text.
    """
    try:
        codec = codecs.lookup(name)
    except LookupError:
        codec = None
    if codec is None or not getattr(codec, "_is_text_encoding", True):
        raise ConfigError(
            f"encoding must be a text encoding that Python knows, got {name!r}; utf-8, utf-16, latin-1 and "
            "windows-1252 are usual."
        )
    return codec.name


def encoding_of(path: Path, head: bytes, named: str = "", *, lenient: bool = False) -> str:
    """The encoding to read a file with: its byte-order mark's, else the one that is named, else UTF-8.

    lenient: let pass what looks like UTF-16 without a mark.

    Raises: DataError for a file that is no text, by the name of what it is; ConfigError for an unknown encoding.
    """
    named = checked_encoding(named) if named else ""
    marked = marked_encoding(head)
    if marked is not None:
        return marked
    kind = foreign_kind(head)
    is_text = kind is None or (kind.startswith("text in") and (lenient or named.startswith("utf-")))
    if not is_text and kind is not None:
        raise DataError(f"{path} must be text, got {kind}; {not_text(kind)}.")
    return named or "utf-8"


def decoded(
    path: Path, encoding: str = "", *, on_fault: Callable[[str], None] | None = None
) -> Iterator[str]:
    """A file's text a stretch at a time, without a byte-order mark.

    encoding: what it is written in, where no mark says so; "" = UTF-8.
    on_fault: is given the first complaint instead of an error; what is wrong is then replaced.
    Raises: DataError for another encoding (with the byte offset), for NUL characters, and for what is no text.
    """
    name = encoding_of(path, head_of(path), encoding)
    decoder = codecs.getincrementaldecoder(name)()
    n_read = 0
    with opened(path) as file:
        while True:
            data = file.read(READ_BYTES)
            n_pending = len(decoder.getstate()[0])  # the first bytes of a character that the last read cut
            fault = None
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as cause:
                fault = wrong_encoding(str(path), cause, n_read - n_pending, name)
                decoder = codecs.getincrementaldecoder(name)(errors="replace")
                text = decoder.decode(cause.object, final=not data)
            if "\0" in text:
                fault = fault or DataError(
                    f"{path} must be text, found a NUL character near byte offset {n_read + max(0, data.find(0)):,}; "
                    "name its encoding with --encoding if it is not UTF-8, or remove such characters."
                )
                text = text.replace("\0", "\ufffd")
            if fault is not None:
                if on_fault is None:
                    raise fault
                on_fault(str(fault))
            text = text.removeprefix("\ufeff") if n_read == 0 else text
            if text:
                yield text
            if not data:
                return
            n_read += len(data)


def wrong_encoding(where: str, cause: UnicodeDecodeError, offset: int, encoding: str) -> DataError:
    """The error for bytes that are not in that encoding; `offset` is that of the decoder's first byte."""
    shown = "UTF-8" if encoding == "utf-8" else encoding
    return DataError(
        f"{where} must be {shown} text, found byte 0x{cause.object[cause.start]:02x} at byte offset "
        f"{offset + cause.start} ({cause.reason}); name its encoding, e.g. --encoding windows-1252."
    )


def lines_of(stretches: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in stretches, with their ends; `\\n` alone ends one."""
    held: list[str] = []  # of a line whose end has not come yet
    for stretch in stretches:
        first, *rest = stretch.split("\n")
        held.append(first)
        for line in rest:
            yield "".join(held) + "\n"
            held = [line]
    if last := "".join(held):
        yield last
