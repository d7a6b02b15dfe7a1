"""Read text files, also gzipped, in UTF-8 or in an encoding given by a byte-order mark or by the user.

The format is detected from the content, not the name: gzip is decompressed, a byte-order mark sets the
encoding, and a file that is not text is rejected with the name of its format.
"""

import codecs
import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.file_kinds import (
    BINARY,
    GZIP_MAGIC,
    HEAD_BYTES,
    foreign_kind,
    marked_encoding,
    not_text,
    wide_encoding,
)

READ_BYTES = 1 << 20
NO_FILES_ENCODINGS = ("idna", "punycode", "undefined")  # of host names, and one that only raises


def path_of(name: str | Path) -> Path:
    """The path that the user named.

    Raises: DataError for an empty name, as of a variable without a value; as a path it would be the working folder.
    """
    if name == "":
        raise DataError("data must name a file or folder, got an empty path; name one.")
    return Path(name)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; gzip (by content or name) is decompressed.

    Raises: DataError for a file that is missing, unreadable, or not a complete gzip file.
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
            f"{path} is not a complete gzip file ({cause}); copy or download it again."
        ) from cause
    except OSError as cause:
        raise DataError(f"{path} cannot be read ({cause.strerror or cause}); check the path.") from cause


def head_of(path: Path) -> bytes:
    """A file's first bytes, decompressed.

    Raises: DataError as `opened` does.
    """
    with opened(path) as file:
        return file.read(HEAD_BYTES)


def checked_encoding(name: str) -> str:
    """Python's standard name of an encoding.

    Raises: ConfigError for a name that is not a text encoding.
    """
    try:
        codec = codecs.lookup(name)
    except LookupError:
        codec = None
    if codec is None or not getattr(codec, "_is_text_encoding", True) or codec.name in NO_FILES_ENCODINGS:
        raise ConfigError(
            f"encoding must be a text encoding that Python knows, got {name!r}; utf-8, utf-16, latin-1 and "
            "windows-1252 are usual."
        )
    return codec.name


def encoding_of(path: Path, head: bytes, named: str = "", *, lenient: bool = False) -> str:
    """The encoding of a file: that of its byte-order mark, else the given one, else UTF-8.

    lenient: accept what looks like UTF-16 without a mark.
    Raises: DataError for a file that is not text, naming its format; ConfigError for an unknown encoding.
    """
    named = checked_encoding(named) if named else ""
    marked = marked_encoding(head)
    if marked is not None:
        return marked
    kind = foreign_kind(head)
    may_be_text = kind is not None and (kind == BINARY or kind.startswith("text in"))
    is_text = kind is None or (may_be_text and (lenient or named.startswith("utf-")))
    if not is_text and kind is not None:
        raise DataError(f"{path} must be text, got {kind}; {not_text(kind)}.")
    if named in ("utf-16", "utf-32"):  # without a mark: in the order of bytes it shows, else that of Windows
        found = wide_encoding(head) or ""
        return found if found.startswith(named) else f"{named}-le"
    return named or "utf-8"


def decoded(
    path: Path, encoding: str = "", *, on_fault: Callable[[str], None] | None = None
) -> Iterator[str]:
    """Yield a file's text in pieces of bounded size, without a byte-order mark.

    encoding: used where no byte-order mark sets it; "" means UTF-8.
    on_fault: called with the message instead of raising; invalid bytes are replaced.
    Raises: DataError for another encoding (with the byte offset), NUL characters, and files that are not text.
    """
    name = encoding_of(path, head_of(path), encoding)
    decoder = codecs.getincrementaldecoder(name)()
    n_read = 0
    with opened(path) as file:
        while True:
            data = file.read(READ_BYTES)
            n_pending = len(decoder.getstate()[0])  # bytes of a character split between two reads
            fault = None
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as cause:
                fault = wrong_encoding(str(path), cause, n_read - n_pending, name)
                decoder = codecs.getincrementaldecoder(name)(errors="replace")
                text = decoder.decode(cause.object, final=not data)
            if "\0" in text:
                fault = fault or DataError(
                    f"{path} has a NUL character near byte offset {n_read + max(0, data.find(0)):,} and is not "
                    "plain text; name its encoding with --encoding if it is not UTF-8, or remove such characters."
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
    """The error for bytes that are invalid in the encoding; `offset` is that of the decoder's first byte."""
    shown = "UTF-8" if encoding == "utf-8" else encoding
    return DataError(
        f"{where} is not {shown} text: byte 0x{cause.object[cause.start]:02x} at byte offset "
        f"{offset + cause.start} ({cause.reason}); name its encoding, e.g. --encoding windows-1252."
    )


def lines_of(stretches: Iterable[str], *, max_chars: int | None = None) -> Iterator[str]:
    """Yield the lines of a text that arrives in pieces, with their ends; only `\\n` ends a line.

    max_chars: maximum length; a longer line is cut there.
    """
    held: list[str] = []  # text of a line whose end has not been read yet
    n_chars = 0
    for stretch in stretches:
        first, *rest = stretch.split("\n")
        held.append(first)
        for line in rest:
            yield "".join(held) + "\n"
            held = [line]
        n_chars = sum(map(len, held)) if rest else n_chars + len(first)
        while max_chars is not None and n_chars >= max_chars:
            text = "".join(held)
            yield text[:max_chars]
            held, n_chars = [text[max_chars:]], n_chars - max_chars
    if last := "".join(held):
        yield last
