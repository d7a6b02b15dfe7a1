"""Find damaged text: bytes that are not UTF-8, mojibake, invisible characters, special tokens.

Text is decoded in pieces and never rejected: a byte that is not UTF-8 is counted and replaced, so that the audit shows
all faults and not only the first. A model reproduces such faults: trained on quotes stored as `â€™`, it writes `â€™`.
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from scratchlm.core.file_kinds import foreign_kind
from scratchlm.data.text_files import READ_BYTES, encoding_of, head_of, opened

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # how `surrogateescape` represents a byte that is not UTF-8
_MARK = "\ufeff"


@dataclass(kw_only=True, slots=True)
class ByteFaults:
    """Faults and line ends of a file, counted by `decoded_leniently`.

    Units: bytes, after decompression
    """

    n_bytes: int = 0
    n_invalid: int = 0  # bytes that are not UTF-8
    first_invalid: int | None = None  # the offset of the first of them
    has_byte_order_mark: bool = False
    n_lf: int = 0  # Unix line ends
    n_crlf: int = 0  # Windows line ends
    n_cr: int = 0  # line ends of old Macs, or stray carriage returns
    n_zero: int = 0

    def figures(self) -> dict[str, Any]:
        """The counts, with the keys of `--json`."""
        return {
            "n": self.n_bytes,
            "invalid_utf8": self.n_invalid,
            "first_invalid": self.first_invalid,
            "byte_order_mark": self.has_byte_order_mark,
            "lf": self.n_lf,
            "crlf": self.n_crlf,
            "cr": self.n_cr,
            "zero": self.n_zero,
        }


def decoded_leniently(path: str | Path, faults: ByteFaults, encoding: str = "") -> Iterator[str]:
    """Yield a file's text in pieces, decompressed when it is gzip; faults are counted and replaced.

    encoding: used where no byte-order mark sets it; "" means UTF-8.
    Raises: DataError when the file cannot be opened, is not a complete gzip file, or is not text.
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
            held = "\r" if text.endswith("\r") and data else ""  # its line feed may be in the next read
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
    """Count a file's faults; for a file that is not text, only its bytes."""
    kind = foreign_kind(head_of(path))
    if kind is not None and not kind.startswith("text"):
        faults.n_bytes += path.stat().st_size
        return
    for _ in decoded_leniently(path, faults, encoding):
        pass


def _count(text: str, faults: ByteFaults, offset: int) -> int:
    """Count the faults of this piece; returns the byte offset after it."""
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


EXCERPT_CHARS = 24  # characters shown on each side of a finding
N_EXAMPLES = 3  # examples kept of each kind

# The bytes 0x80-0xff decoded as Windows-1252; its five unused bytes map to their own code points.
_CP1252 = {
    character: byte
    for byte in range(0x80, 0xA0)
    for character in (chr(byte), bytes([byte]).decode("cp1252", errors="ignore"))
    if character
} | {chr(byte): byte for byte in range(0xA0, 0x100)}
_FOLLOWING = "".join(re.escape(character) for character, byte in _CP1252.items() if byte < 0xC0)
# A single accent or typographic mark counts; other letters only in sequence, since `voilà »` and `ÉTÉ»`
# are correct French.
_MOJIBAKE = re.compile(
    f"(?:[ÂÃ][{_FOLLOWING}]|â[{_FOLLOWING}]{{2}}|ð[{_FOLLOWING}]{{3}}"
    f"|(?:[Ä-ß][{_FOLLOWING}]){{2,}}|(?:[à-ï][{_FOLLOWING}]{{2}}){{2,}})+"
)


class Finding(NamedTuple):
    """One place in a text, with an explanation."""

    start: int
    stop: int
    note: str = ""  # e.g. the repaired text


def _matches(pattern: str) -> Callable[[str], Iterator[Finding]]:
    find = re.compile(pattern).finditer
    return lambda text: (Finding(*found.span(), note=_named(found[0][0])) for found in find(text))


def _named(character: str) -> str:
    """Code point and name of an invisible character; "" for a visible one."""
    if "!" <= character <= "~":
        return ""
    is_c1 = "\x80" <= character <= "\x9f"
    in_windows = bytes([ord(character)]).decode("cp1252", errors="ignore") if is_c1 else ""
    name = f"in Windows-1252 {in_windows}" if in_windows else unicodedata.name(character, "").lower()
    return f"U+{ord(character):04X} {name}".strip()


def _mojibake(text: str) -> Iterator[Finding]:
    """Find UTF-8 that was decoded as Windows-1252 or Latin-1; only repairable text counts."""
    for found in _MOJIBAKE.finditer(text):
        repaired = repaired_mojibake(found[0])
        if repaired is not None:
            yield Finding(*found.span(), note=f"should be {repaired!r}")


def repaired_mojibake(text: str) -> str | None:
    """The text before its UTF-8 bytes were decoded as Windows-1252; None when they were not.

    Example:
        >>> repaired_mojibake("Ã©"), repaired_mojibake("â€™"), repaired_mojibake("é")
        ('é', '’', None)
    """
    try:
        return bytes(_CP1252.get(character, ord(character)) for character in text).decode("utf-8")
    except (UnicodeDecodeError, ValueError):
        return None


# Name of a fault -> its explanation and the function or pattern that finds it.
FAULTS: dict[str, tuple[str, Callable[[str], Iterator[Finding]]]] = {
    "mojibake": ("UTF-8 read as Windows-1252 or Latin-1", _mojibake),
    "replacement": (
        "replacement characters: an earlier program could not decode the text there",
        _matches("\ufffd+"),
    ),
    "c1_control": (
        "control characters U+0080 to U+009F: mostly Windows quotes and dashes read as Latin-1",
        _matches("[\x80-\x9f]+"),
    ),
    "control": (
        "control characters below U+0020, other than tab and line ends",
        _matches("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+"),
    ),
    "carriage_return": ("carriage returns inside texts", _matches("\r+")),
    "zero_width": (
        "invisible characters: zero-width marks, soft hyphens, byte-order marks inside text",
        _matches("[\u00ad\u180e\u200b\u2060-\u2064\ufeff]+"),
    ),
    "bidirectional": (
        "marks that change the direction of the text around them",
        _matches("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+"),
    ),
    "unusual_space": (
        "unusual spaces: no-break, thin, ideographic",
        _matches("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u2028\u2029]+"),
    ),
    "private_use": (
        "characters with no agreed meaning: private use, lone surrogates, noncharacters",
        _matches("[\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]+"),
    ),
    "html_entity": (
        "HTML character references",
        _matches(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});"),
    ),
}
_UNSUSPICIOUS = re.compile(r"[\t\n -%'-~]*")  # plain ASCII without an ampersand has none of these faults

# Strings that mark turns and ends in chat templates and tokenizers; they should not occur in plain data.
SPECIAL_STRINGS = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<sep>", "<cls>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"),
    *("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]"),
)


def special_token_pattern(more: Iterable[str] = ()) -> re.Pattern[str]:
    """A pattern for special-token strings: `<|...|>`, the well-known ones, and `more`, e.g. a tokenizer's."""
    known = sorted({*SPECIAL_STRINGS, *more}, key=lambda text: (-len(text), text))  # the longest match wins
    return re.compile(r"<\|[A-Za-z0-9_/. -]{1,40}\|>|" + "|".join(re.escape(text) for text in known if text))


@dataclass(slots=True)
class Sighting:
    """The counts of one kind of fault, and its first examples."""

    n: int = 0  # places
    n_rows: int = 0  # texts with at least one finding
    examples: list[dict[str, str]] = field(default_factory=list)

    def add(self, text: str, findings: list[Finding], where: str) -> None:
        """Count one text's findings."""
        self.n += len(findings)
        self.n_rows += 1
        if len(self.examples) < N_EXAMPLES:
            first = findings[0]
            self.examples.append(
                {
                    "where": where,
                    "before": text[max(0, first.start - EXCERPT_CHARS) : first.start],
                    "found": text[first.start : min(first.stop, first.start + EXCERPT_CHARS)],
                    "after": text[first.stop : first.stop + EXCERPT_CHARS],
                    "note": first.note,
                }
            )

    def figures(self) -> dict[str, Any]:
        """The counts, with the keys of `--json`."""
        return {"n": self.n, "rows": self.n_rows, "examples": self.examples}


class TextFaults:
    """Count damaged characters and special-token strings, text by text.

    special: more strings to search, e.g. the tokenizer's special tokens.
    """

    def __init__(self, special: Iterable[str] = ()) -> None:
        self.faults = {name: Sighting() for name in FAULTS}
        self.special: dict[str, Sighting] = {}
        self._special_pattern = special_token_pattern(special)

    def add(self, text: str, where: str) -> None:
        """Search one text."""
        if not _UNSUSPICIOUS.fullmatch(text):
            unexplained = text
            for name, (_, find) in FAULTS.items():
                findings = list(find(unexplained))
                if findings:
                    self.faults[name].add(text, findings, where)
                if name == "mojibake":  # its characters are not counted again as other faults
                    for start, stop, _ in findings:
                        unexplained = unexplained[:start] + " " * (stop - start) + unexplained[stop:]
        by_token: dict[str, list[Finding]] = {}
        for found in self._special_pattern.finditer(text):
            by_token.setdefault(found[0], []).append(Finding(*found.span()))
        for token, findings in by_token.items():
            self.special.setdefault(token, Sighting()).add(text, findings, where)

    def figures(self) -> dict[str, Any]:
        """`faults` and `special_tokens`, the most frequent first; kinds that were not found are left out."""
        found = {name: seen for name, seen in self.faults.items() if seen.n}
        faults = [{"name": n, "meaning": FAULTS[n][0], **seen.figures()} for n, seen in found.items()]
        special = [{"token": token, **seen.figures()} for token, seen in self.special.items()]
        return {
            "faults": sorted(faults, key=lambda row: -row["n"]),
            "special_tokens": sorted(special, key=lambda row: (-row["n"], row["token"])),
        }
