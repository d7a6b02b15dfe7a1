"""Changing text before it is cut: the normalizers of `tokenizer.json` that Python can run exactly.

Each is named as in the file and changes one string into another.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import regex

from scratchlm.tokenizers.patterns import Pattern

_SPACE = regex.compile(r"\p{White_Space}")


class Normalizer(Protocol):
    """A change of text."""

    def normalized(self, text: str) -> str:
        """The text after the change."""
        ...


@dataclass(frozen=True, slots=True)
class NFC:
    """Put letters and their accents together, as Qwen does."""

    def normalized(self, text: str) -> str:
        """The text in Unicode's form of this name."""
        return unicodedata.normalize("NFC", text)


@dataclass(frozen=True, slots=True)
class NFD:
    """Take letters and their accents apart."""

    def normalized(self, text: str) -> str:
        """The text in Unicode's form of this name."""
        return unicodedata.normalize("NFD", text)


@dataclass(frozen=True, slots=True)
class NFKC:
    """Put letters and accents together, and write variants of a character (ligatures, widths) in its plain form."""

    def normalized(self, text: str) -> str:
        """The text in Unicode's form of this name."""
        return unicodedata.normalize("NFKC", text)


@dataclass(frozen=True, slots=True)
class NFKD:
    """Take letters and accents apart, and write variants of a character in its plain form."""

    def normalized(self, text: str) -> str:
        """The text in Unicode's form of this name."""
        return unicodedata.normalize("NFKD", text)


@dataclass(frozen=True, slots=True)
class Lowercase:
    """Write small letters."""

    def normalized(self, text: str) -> str:
        """The text in small letters, each for itself: a sigma at the end of a word is not special."""
        return "".join(map(str.lower, text))


@dataclass(frozen=True, slots=True)
class StripAccents:
    """Drop combining marks; after NFD these are the accents."""

    def normalized(self, text: str) -> str:
        """The text without them."""
        return "".join(char for char in text if unicodedata.category(char)[0] != "M")


@dataclass(frozen=True, slots=True)
class Strip:
    """Drop white space at the ends."""

    strip_left: bool
    strip_right: bool

    def normalized(self, text: str) -> str:
        """The text without it."""
        start, end = 0, len(text)
        while self.strip_left and start < end and _SPACE.match(text, start):
            start += 1
        while self.strip_right and start < end and _SPACE.match(text, end - 1):
            end -= 1
        return text[start:end]


@dataclass(frozen=True, slots=True)
class Prepend:
    """Put a string in front of a text that is not empty."""

    prepend: str

    def normalized(self, text: str) -> str:
        """The text with it."""
        return self.prepend + text if text else text


@dataclass(frozen=True, slots=True)
class Replace:
    """Write another string for every match of a pattern.

    Raises: ConfigError for a pattern that is no regular expression or would fill the memory.
    """

    pattern: Pattern
    content: str

    def __post_init__(self) -> None:
        _ = self.pattern.compiled

    def normalized(self, text: str) -> str:
        """The text after it."""
        return str(self.pattern.compiled.sub(lambda _: self.content, text))


NORMALIZERS: tuple[type[Normalizer], ...] = (
    NFC,
    NFD,
    NFKC,
    NFKD,
    Lowercase,
    StripAccents,
    Strip,
    Prepend,
    Replace,
)


def normalize(text: str, normalizers: Iterable[Normalizer]) -> str:
    """Apply one change after the other.

    Example:
        >>> normalize("Caf\\u00e9", [NFD(), StripAccents(), Lowercase()])
        'cafe'
    """
    for normalizer in normalizers:
        text = normalizer.normalized(text)
    return text
