"""Change text before it is split: the normalizers of `tokenizer.json` that Python can run exactly.

Each class has the name and the settings that it has in the file; calling it returns the changed text.
"""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import regex

from scratchlm.tokenizers.patterns import Pattern

_SPACE = regex.compile(r"\p{White_Space}")


Normalizer = Callable[[str], str]


class _UnicodeForm:
    """Normalize to the Unicode form that gives the class its name."""

    __slots__ = ()

    def __call__(self, text: str) -> str:
        return unicodedata.normalize(type(self).__name__, text)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class NFC(_UnicodeForm):
    """Compose letters and their accents, as Qwen does."""


@dataclass(frozen=True, slots=True)
class NFD(_UnicodeForm):
    """Decompose letters and their accents."""


@dataclass(frozen=True, slots=True)
class NFKC(_UnicodeForm):
    """Compose letters and accents, and replace variants of a character (ligatures, widths) by its plain form."""


@dataclass(frozen=True, slots=True)
class NFKD(_UnicodeForm):
    """Decompose letters and accents, and replace variants of a character by its plain form."""


@dataclass(frozen=True, slots=True)
class Lowercase:
    """Convert to lower case character by character, so that a final sigma gets no special form."""

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return "".join(map(str.lower, text))


@dataclass(frozen=True, slots=True)
class StripAccents:
    """Remove combining marks; after NFD these are the accents."""

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return "".join(char for char in text if unicodedata.category(char)[0] != "M")


@dataclass(frozen=True, slots=True)
class Strip:
    """Remove white space at the ends."""

    strip_left: bool
    strip_right: bool

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        start, end = 0, len(text)
        while self.strip_left and start < end and _SPACE.match(text, start):
            start += 1
        while self.strip_right and start < end and _SPACE.match(text, end - 1):
            end -= 1
        return text[start:end]


@dataclass(frozen=True, slots=True)
class Prepend:
    """Put a string in front of text that is not empty."""

    prepend: str

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return self.prepend + text if text else text


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace every match of a pattern by a string.

    Raises: ConfigError for an invalid regular expression, or one that would fill the memory.
    """

    pattern: Pattern
    content: str

    def __post_init__(self) -> None:
        _ = self.pattern.compiled  # an invalid pattern is reported now, not at the first text

    def __call__(self, text: str) -> str:
        """Return the changed text."""
        return str(self.pattern.compiled.sub(lambda _: self.content, text))


NORMALIZERS: tuple[type[Any], ...] = (
    *(NFC, NFD, NFKC, NFKD),
    *(Lowercase, StripAccents, Strip, Prepend, Replace),
)


def normalize(text: str, normalizers: Iterable[Normalizer]) -> str:
    """Apply the normalizers in order.

    Example:
        >>> normalize("Caf\\u00e9", [NFD(), StripAccents(), Lowercase()])
        'cafe'
    """
    for normalizer in normalizers:
        text = normalizer(text)
    return text
