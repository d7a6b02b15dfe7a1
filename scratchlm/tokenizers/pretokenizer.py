"""Cutting text into pieces that tokens never cross: words with the space in front, numbers, punctuation.

Byte-pair merging happens inside a piece, so no token holds the end of one word and the start of the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

from scratchlm.core.errors import ConfigError, TokenizerError

# Source: OpenAI's GPT-2, encoder.py. In words: an English contraction's end; letters, numbers or other signs
# with at most one space in front; white space, which leaves its last character to the word that follows.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The same pieces for plain text, by Python's own `re`, which is twice as fast but knows no \p{L}.
_PLAIN_PATTERN = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?(?:[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]+)|\s+(?!\S)|\s+", re.ASCII
)
# Plain: ASCII, and the dashes and quotes of printed English, which are neither letters nor numbers nor space.
_PLAIN_TEXT = re.compile("[\x00-\x7f\u2010-\u2027]*")

# Between a visible character and a space or newline there is always a border of GPT-2's pieces: no part of
# the pattern matches across it or looks past it. So text may be cut there and each chunk be handled alone.
_SAFE_CUT = re.compile(r"\S(?=[ \n])")
_CHUNK_CHARS = 1 << 14  # small, so that one accented letter sends only its neighbourhood down the slower path

# A pattern comes from a file: `(a{9999}){9999}` is short, and compiled it fills the memory of any machine.
_MAX_PATTERN_CHARS = 10_000
_MAX_REPEATS = 10_000  # all counts of a pattern multiplied; GPT-4's has one, {1,3}
_DIGIT = regex.compile(r"(\p{N})")
_COUNT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


class PreTokenizer:
    """Cuts text by a pattern; GPT-2's own pattern takes a fast path, tested equal to the plain one.

    With `splits_digits` every digit is cut off first, and the pattern sees what lies between.
    What a pattern does not match becomes a piece as well: the pieces always join up to the text.
    Which characters are letters and numbers is decided by the Unicode version of the `regex` package.
    Raises: ConfigError when the pattern is no regular expression, or would fill the memory.
    """

    def __init__(self, pattern: str = GPT2_PATTERN, *, splits_digits: bool = False) -> None:
        self.pattern = pattern
        self.splits_digits = splits_digits
        self._is_gpt2 = pattern == GPT2_PATTERN
        _check_size(pattern)
        try:
            self._compiled = regex.compile(pattern)
        except (regex.error, RecursionError) as cause:
            raise ConfigError(
                f"the pattern must be a regular expression, got {pattern!r:.500} ({cause}); correct it."
            ) from cause

    def pieces(self, text: str) -> Iterator[list[str]]:
        r"""The pieces in order, a list for each chunk of the text, so that memory stays small.

        Example:
            >>> list(PreTokenizer().pieces("They'll see  42!"))
            [['They', "'ll", ' see', ' ', ' 42', '!']]
        """
        if self.splits_digits:
            for part in _DIGIT.split(text):  # every second part is a digit
                if _DIGIT.fullmatch(part):
                    yield [part]
                else:
                    yield from self._pieces_between_digits(part)
            return
        yield from self._pieces_between_digits(text)

    def _pieces_between_digits(self, text: str) -> Iterator[list[str]]:
        if not self._is_gpt2:
            yield self._matches_and_gaps(text)
            return
        for chunk in self.chunks(text):
            is_plain = chunk.isascii() or _PLAIN_TEXT.fullmatch(chunk) is not None
            yield _PLAIN_PATTERN.findall(chunk) if is_plain else self._compiled.findall(chunk)

    def chunks(self, text: str) -> Iterator[str]:
        """Cut long text where GPT-2's pieces have a border; text without such a place stays whole."""
        start = 0
        while start < len(text):
            cut = _SAFE_CUT.search(text, start + _CHUNK_CHARS) if self._is_gpt2 else None
            end = cut.end() if cut else len(text)
            yield text[start:end]
            start = end

    def _matches_and_gaps(self, text: str) -> list[str]:
        pieces, end = [], 0
        for match in self._compiled.finditer(text):
            pieces += [text[end : match.start()], match.group()]
            end = match.end()
        pieces.append(text[end:])
        return [piece for piece in pieces if piece]


def _check_size(pattern: str) -> None:
    n_repeats = 1
    if len(pattern) <= _MAX_PATTERN_CHARS:
        for match in _COUNT.finditer(pattern):
            n_repeats *= max(int(digits[:9] or 1) or 1 for digits in match.groups())
            if n_repeats > _MAX_REPEATS:
                break
        else:
            return
    raise ConfigError(
        f"the pattern must have at most {_MAX_PATTERN_CHARS:,} characters and repeat at most {_MAX_REPEATS:,} "
        f"times, got {pattern!r:.100} ({len(pattern):,} characters); shorten it or lower the counts in braces."
    )


def check_unicode(text: str) -> None:
    """Make sure that text has bytes at all.

    Raises: TokenizerError for anything but a str, and with the position of a lone surrogate, half of a UTF-16
    pair that no UTF-8 can hold.
    """
    if not isinstance(text, str):
        raise TokenizerError(f"a tokenizer needs text, got {text!r:.60} ({type(text).__name__}); give a str.")
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise TokenizerError(
            f"text must be valid Unicode, found the lone surrogate U+{ord(text[cause.start]):04X} at "
            f"character {cause.start}; read the file as UTF-8 with errors='replace', or remove that "
            "character."
        ) from cause
