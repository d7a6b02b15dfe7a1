"""Cutting text into pieces that tokens never cross: words with the space in front, numbers, punctuation.

Byte-pair merging happens inside a piece, so no token holds the end of one word and the start of the next.
A family cuts in one or more steps, named as in Hugging Face's `tokenizer.json`; GPT-2's only step is ByteLevel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.patterns import GPT2_PATTERN, Pattern, compile_pattern

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

Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


@dataclass(frozen=True, slots=True)
class Split:
    """Cut at the matches of a pattern, which then stand alone, join a neighbour, or go.

    invert: what lies between the matches takes the part of the matches.
    Raises: ConfigError for another behavior, and for a pattern that is no regular expression or would fill the memory.
    """

    pattern: Pattern
    behavior: Behavior = "Isolated"
    invert: bool = False

    def __post_init__(self) -> None:
        _ = self.pattern.compiled  # a broken pattern is reported now, not at the first text
        if self.behavior not in get_args(Behavior):
            raise ConfigError(
                f"behavior must be one of {', '.join(get_args(Behavior))}, got {self.behavior!r:.40}; choose one."
            )

    def cut(self, piece: str) -> list[str]:
        """The pieces of a piece.

        Example:
            >>> Split(Pattern(r"-"), "MergedWithNext").cut("a-b--c")
            ['a', '-b', '-', '-c']
        """
        parts: list[tuple[str, bool]] = []  # (text, whether the pattern matches it)
        end = 0
        for match in self.pattern.compiled.finditer(piece):
            if end < match.start():
                parts.append((piece[end : match.start()], self.invert))
            parts.append((match.group(), not self.invert))
            end = match.end()
        if end < len(piece):
            parts.append((piece[end:], self.invert))
        if self.behavior == "Isolated":
            return [text for text, _ in parts if text]
        if self.behavior == "Removed":
            return [text for text, matches in parts if text and not matches]
        if self.behavior == "MergedWithNext":  # MergedWithPrevious, read from the right
            return [text for text in reversed(_joined(parts[::-1], self.behavior)) if text]
        return [text for text in _joined(parts, self.behavior) if text]


@dataclass(frozen=True, slots=True)
class Digits:
    """Cut numbers off: each digit a piece of its own, as in SmolLM 2, or each run of digits."""

    individual_digits: bool

    def cut(self, piece: str) -> list[str]:
        """The pieces of a piece.

        Example:
            >>> Digits(individual_digits=True).cut("room 42")
            ['room ', '4', '2']
        """
        pattern = r"\p{N}" if self.individual_digits else r"\p{N}+"
        return Split(Pattern(pattern)).cut(piece)


@dataclass(frozen=True, slots=True)
class ByteLevel:
    """The last step of every byte-level tokenizer: GPT-2's pattern, if use_regex says so.

    add_prefix_space: a piece that does not begin with a space gets one.
    trim_offsets: tells other programs where tokens lie in the text; the ids do not depend on it.
    """

    add_prefix_space: bool = False
    use_regex: bool = True
    trim_offsets: bool = field(default=True, compare=False)

    REQUIRED: ClassVar = ("add_prefix_space",)  # programs differ in what they take for granted

    def cut(self, piece: str) -> list[str]:
        """The pieces of a piece."""
        piece = self.prefixed(piece)
        return compile_pattern(GPT2_PATTERN).findall(piece) if self.use_regex else [piece]

    def prefixed(self, piece: str) -> str:
        """The piece with the space that it may need in front."""
        return f" {piece}" if self.add_prefix_space and not piece.startswith(" ") else piece


Step = Split | Digits | ByteLevel
STEPS: tuple[type[Step], ...] = (Split, Digits, ByteLevel)


def steps_of(pattern: str) -> tuple[Step, ...]:
    """The steps that cut by one pattern."""
    if pattern == GPT2_PATTERN:
        return (ByteLevel(),)
    return (Split(Pattern(pattern)), ByteLevel(use_regex=False))


class PreTokenizer:
    """Cuts text in steps; GPT-2's own pattern takes a fast path, tested equal to the plain one.

    What a pattern does not match becomes a piece as well: unless a step removes or adds text, the pieces join up to it.
    Raises: ConfigError when ByteLevel is not the last step, or stands among the others.
    """

    def __init__(self, steps: Sequence[Step] = (ByteLevel(),)) -> None:
        *first, last = steps or (None,)
        if not isinstance(last, ByteLevel) or any(isinstance(step, ByteLevel) for step in first):
            raise ConfigError(
                f"a byte-level tokenizer must cut text by ByteLevel once, as its last step, got {steps!r:.200}; "
                "the `tokenizers` package can run other orders."
            )
        self.steps = tuple(steps)
        self._first, self._last = first, last
        self._reference = compile_pattern(GPT2_PATTERN)

    def pieces(self, text: str) -> Iterator[list[str]]:
        r"""The pieces in order, a list for each chunk of the text, so that memory stays small.

        Example:
            >>> list(PreTokenizer().pieces("They'll see  42!"))
            [['They', "'ll", ' see', ' ', ' 42', '!']]
        """
        parts = [text]
        for step in self._first:
            parts = [piece for part in parts for piece in step.cut(part)]
        if not self._last.use_regex:
            yield [self._last.prefixed(part) for part in parts]
            return
        for part in parts:
            for chunk in self.chunks(self._last.prefixed(part)):
                is_plain = chunk.isascii() or _PLAIN_TEXT.fullmatch(chunk) is not None
                yield _PLAIN_PATTERN.findall(chunk) if is_plain else self._reference.findall(chunk)

    def chunks(self, text: str) -> Iterator[str]:
        """Cut long text where GPT-2's pieces have a border; text without such a place stays whole."""
        start = 0
        while start < len(text):
            cut = _SAFE_CUT.search(text, start + _CHUNK_CHARS)
            end = cut.end() if cut else len(text)
            yield text[start:end]
            start = end


def _joined(parts: Sequence[tuple[str, bool]], behavior: Behavior) -> list[str]:
    """Join matches to the part that was read before them, or runs of one kind."""
    joined: list[str] = []
    earlier = False
    for text, matches in parts:
        joins = matches == earlier if behavior == "Contiguous" else matches and not earlier
        if joins and joined:
            joined[-1] = text + joined[-1] if behavior == "MergedWithNext" else joined[-1] + text
        else:
            joined.append(text)
        earlier = matches
    return joined


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
