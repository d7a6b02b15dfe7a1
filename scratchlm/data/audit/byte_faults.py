"""A file's bytes before anything reads them: is it UTF-8, how do its lines end, does it hold zero bytes?

Text is decoded a stretch at a time and never refused: a byte that is no UTF-8 is counted, its place is kept,
and it goes on as the replacement character. An X-ray that stops at the first fault shows only that one.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scratchlm.core.file_kinds import foreign_kind
from scratchlm.data.text_files import READ_BYTES, encoding_of, head_of, opened

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # how `surrogateescape` passes a byte on that is no UTF-8
_MARK = "\ufeff"


@dataclass(kw_only=True, slots=True)
class ByteFaults:
    """What a file's bytes are like, counted while `decoded_leniently` reads it.

    Units: bytes, as they are once unzipped
    """

    n_bytes: int = 0
    n_invalid: int = 0  # bytes that are no UTF-8
    first_invalid: int | None = None  # the offset of the first of them
    has_byte_order_mark: bool = False
    n_lf: int = 0  # lines that end as Unix lines do
    n_crlf: int = 0  # as Windows lines do
    n_cr: int = 0  # as lines of the oldest Macs do, or as a stray carriage return
    n_zero: int = 0


def decoded_leniently(path: str | Path, faults: ByteFaults, encoding: str = "") -> Iterator[str]:
    """A file's text in stretches, unzipped when it is gzip; every fault is counted, none stops it.

    encoding: of text that has no byte-order mark; "" = UTF-8.
    Raises: DataError when the file cannot be opened, is no whole gzip file, or is no text at all.
    """
    path = Path(path)
    name = encoding_of(path, head_of(path), encoding, lenient=True)
    errors = "surrogateescape" if name == "utf-8" else "replace"
    decoder = codecs.getincrementaldecoder(name)(errors=errors)
    n_decoded, held = 0, ""
    with opened(path) as file:
        while True:
            data = file.read(READ_BYTES)
            text = held + decoder.decode(data, final=not data)
            held = "\r" if text.endswith("\r") and data else ""  # its line feed may come with the next read
            text = text.removesuffix(held) if held else text
            is_start = faults.n_bytes == 0
            faults.n_bytes += len(data)
            n_decoded = _count(text, faults, n_decoded)
            if is_start and text.startswith(_MARK):
                faults.has_byte_order_mark = True
                text = text.removeprefix(_MARK)
            if text:
                yield _ESCAPED_BYTE.sub("\ufffd", text)
            if not data:
                return


def count_bytes(path: Path, faults: ByteFaults, encoding: str = "") -> None:
    """Only look at a file's bytes; of a file that is no text, count them."""
    kind = foreign_kind(head_of(path))
    if kind is not None and not kind.startswith("text"):
        faults.n_bytes += path.stat().st_size
        return
    for _ in decoded_leniently(path, faults, encoding):
        pass


def _count(text: str, faults: ByteFaults, offset: int) -> int:
    """Add what this stretch holds; gives back the offset of the byte after it."""
    found = _ESCAPED_BYTE.search(text)
    if found is not None:
        faults.n_invalid += len(_ESCAPED_BYTE.findall(text))
        if faults.first_invalid is None:
            faults.first_invalid = offset + len(text[: found.start()].encode("utf-8"))
    n_crlf = text.count("\r\n")
    faults.n_crlf += n_crlf
    faults.n_cr += text.count("\r") - n_crlf
    faults.n_lf += text.count("\n") - n_crlf
    faults.n_zero += text.count("\0")
    return offset + len(text.encode("utf-8", "surrogateescape"))
