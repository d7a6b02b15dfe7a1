"""Split text into the pieces inside which BPE merges: words with the space in front, numbers, punctuation.

So no token contains the end of one word and the start of the next. A family splits in one or more steps,
named as in Hugging Face's `tokenizer.json`; GPT-2's only step is ByteLevel.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.patterns import GPT2_PATTERN, Pattern, compile_pattern, spans

# GPT-2's pattern for plain text in Python's own `re`, which is twice as fast but has no \p{L}.
_PLAIN_PATTERN = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?(?:[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]+)|\s+(?!\S)|\s+", re.ASCII
)
# Plain text: ASCII, and the dashes and quotes of printed English, which are neither letters, numbers nor space.
_PLAIN_TEXT = re.compile("[\x00-\x7f\u2010-\u2027]*")

# Between a visible character and a space or newline GPT-2's pattern always splits: no part of it matches across that
# place or looks past it. So text may be cut there and each chunk handled separately.
_SAFE_CUT = re.compile(r"\S(?=[ \n])")
_CHUNK_CHARS = 1 << 14  # small, so that an accented letter slows down only its chunk

Behavior = Literal["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


@dataclass(frozen=True, slots=True)
class Split:
    """Split at the matches of a pattern, which become pieces, join a neighbour, or are removed.

    invert: exchange the roles of the matches and the text between them.
    Raises: ConfigError for another behavior or an invalid pattern; see `compile_pattern`.
    """

    pattern: Pattern
    behavior: Behavior = "Isolated"
    invert: bool = False

    def __post_init__(self) -> None:
        _ = self.pattern.compiled  # an invalid pattern is reported now, not at the first text
        if self.behavior not in get_args(Behavior):
            raise ConfigError(
                f"behavior must be one of {', '.join(get_args(Behavior))}, got {self.behavior!r:.40}; choose one."
            )

    def cut(self, piece: str) -> list[str]:
        """Split one piece.

        Example:
            >>> Split(Pattern(r"-"), "MergedWithNext").cut("a-b--c")
            ['a', '-b', '-', '-c']
        """
        parts: list[tuple[str, bool]] = []  # (text, whether the pattern matches it)
        end = 0
        for start, stop in spans(self.pattern.compiled, piece):
            if end < start:
                parts.append((piece[end:start], self.invert))
            parts.append((piece[start:stop], not self.invert))
            end = stop
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
    """Split numbers off: each digit separately, as in SmolLM 2, or each run of digits."""

    individual_digits: bool

    def cut(self, piece: str) -> list[str]:
        """Split one piece.

        Example:
            >>> Digits(individual_digits=True).cut("room 42")
            ['room ', '4', '2']
        """
        pattern = r"\p{N}" if self.individual_digits else r"\p{N}+"
        return Split(Pattern(pattern)).cut(piece)


@dataclass(frozen=True, slots=True)
class ByteLevel:
    """The last step of every byte-level tokenizer: GPT-2's pattern, if use_regex is set.

    add_prefix_space: put a space in front of a piece that does not begin with one.
    trim_offsets: for other programs, which report offsets in the text; ids do not depend on it.
    """

    add_prefix_space: bool = False
    use_regex: bool = True
    trim_offsets: bool = field(default=True, compare=False)

    REQUIRED: ClassVar = ("add_prefix_space",)  # programs differ in the default

    def cut(self, piece: str) -> list[str]:
        """Split one piece."""
        piece = self.prefixed(piece)
        return compile_pattern(GPT2_PATTERN).findall(piece) if self.use_regex else [piece]

    def prefixed(self, piece: str) -> str:
        """The piece, with a space in front if add_prefix_space is set."""
        return f" {piece}" if self.add_prefix_space and not piece.startswith(" ") else piece


Step = Split | Digits | ByteLevel
STEPS: tuple[type[Step], ...] = (Split, Digits, ByteLevel)


def steps_of(pattern: str) -> tuple[Step, ...]:
    """The steps that split by one pattern."""
    if pattern == GPT2_PATTERN:
        return (ByteLevel(),)
    return (Split(Pattern(pattern)), ByteLevel(use_regex=False))


class PreTokenizer:
    """Split text step by step; GPT-2's own pattern has a fast path, tested equal to the plain one.

    Text between matches becomes a piece as well: unless a step removes or adds text, the pieces add up to the text.
    Raises: ConfigError unless ByteLevel is the last step and only the last.
    """

    def __init__(self, steps: Sequence[Step] = (ByteLevel(),)) -> None:
        *first, last = steps or (None,)
        if not isinstance(last, ByteLevel) or any(isinstance(step, ByteLevel) for step in first):
            raise ConfigError(
                f"a byte-level tokenizer must have ByteLevel as its last step and nowhere else, got {steps!r:.200}; "
                "the `tokenizers` package supports other orders."
            )
        self.steps = tuple(steps)
        self._first, self._last = first, last
        self._reference = compile_pattern(GPT2_PATTERN)

    def pieces(self, text: str) -> Iterator[list[str]]:
        r"""The pieces in order, one list for each chunk of the text, so that memory use stays small.

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
        """Cut long text at places where GPT-2's pattern always splits; text without one stays whole."""
        start = 0
        while start < len(text):
            cut = _SAFE_CUT.search(text, start + _CHUNK_CHARS)
            end = cut.end() if cut else len(text)
            yield text[start:end]
            start = end


def _joined(parts: Sequence[tuple[str, bool]], behavior: Behavior) -> list[str]:
    """Join matches to the part before them, or runs of one kind."""
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
    """Check that text can be encoded as UTF-8.

    Raises: TokenizerError for anything but a str, and with the position of a lone surrogate (half of a UTF-16 pair).
    """
    if not isinstance(text, str):
        raise TokenizerError(f"a tokenizer needs text, got {text!r:.60} ({type(text).__name__}); give a str.")
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as cause:
        raise TokenizerError(
            f"the text has a lone surrogate U+{ord(text[cause.start]):04X} at character {cause.start}, which is "
            "not valid Unicode; read the file as UTF-8 with errors='replace', or remove that character."
        ) from cause
