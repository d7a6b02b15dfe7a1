"""Compile the regular expressions of tokenizer files safely, with the meaning they have in `tokenizers`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import regex

from scratchlm.core.errors import ConfigError

# Source: OpenAI's GPT-2, encoder.py. In words: the ending of an English contraction; letters, numbers or other
# characters with at most one space in front; white space, except for a last space that belongs to the next word.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# A pattern comes from a file: the short `(a{9999}){9999}`, compiled, fills the memory of any machine.
_MAX_PATTERN_CHARS = 10_000
_MAX_REPEATS = 10_000  # product of all counts in a pattern; GPT-4's has one, {1,3}
_COUNT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")

_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"  # \w in Oniguruma; Python's also matches the joiners of emoji
_FOLDED_PAIRS = ("ss", "st", "ff", "fi", "fl")  # in Oniguruma, ignoring case, these also match ß, ﬆ, ﬀ, ﬁ, ﬂ
_SAME_ESCAPES = "dDsSpPnrtfvaAzGux"  # letters that mean the same after a backslash
_PARTS = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[:\^?\w+:\]|\[\^?|\]|\(\?[a-zA-Z~-]+|\{\d*(?:,\d*)?\}\+|&&|.", re.DOTALL
)


class Pattern(NamedTuple):
    """A regular expression, or a literal string, that a step matches."""

    text: str
    is_regex: bool = True

    @classmethod
    def from_json(cls, value: Any) -> Pattern | None:
        """Read `{"Regex": ...}` or `{"String": ...}`; None for anything else."""
        match value:
            case {"Regex": str(text), **others} if not others:
                return cls(text)
            case {"String": str(text), **others} if not others:
                return cls(text, is_regex=False)
        return None

    def to_json(self) -> dict[str, str]:
        """The pattern in the format of `tokenizer.json`."""
        return {"Regex" if self.is_regex else "String": self.text}

    @property
    def compiled(self) -> regex.Pattern[str]:
        """The compiled expression; an empty string matches everywhere.

        Raises: ConfigError; see `compile_pattern`.
        """
        return compile_pattern(self.text if self.is_regex else regex.escape(self.text))


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern from a tokenizer file, with the meaning it has in Oniguruma, which `tokenizers` uses.

    The Unicode version of the `regex` package decides which characters are letters and numbers.
    Raises: ConfigError when the pattern is invalid, would fill the memory, or has a part that means something else in
        Python.
    """
    _check_size(pattern)
    try:
        return regex.compile(_in_python(pattern))
    except (regex.error, RecursionError) as cause:
        raise ConfigError(
            f"the pattern {pattern!r:.100} is not a valid regular expression ({cause}); correct it."
        ) from cause


def spans(pattern: regex.Pattern[str], text: str) -> list[tuple[int, int]]:
    """The places of all matches, as `tokenizers` finds them.

    Right behind another match an empty one does not count, and the search goes on one character later.
    Example:
        >>> spans(compile_pattern("x*"), "axb")
        [(0, 0), (1, 2), (3, 3)]
    """
    found = [match.span() for match in pattern.finditer(text)]
    if all(start < end for start, end in found):
        return found
    found, at, last = [], 0, -1
    while at <= len(text) and (match := pattern.search(text, at)):
        start, end = match.span()
        if start == end == last:
            at += 1
        else:
            found.append((start, end))
            at = last = end
    return found


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


def _in_python(pattern: str) -> str:
    """Translate an Oniguruma pattern for the `regex` package; parts that differ in meaning raise ConfigError."""
    written: list[str] = []
    in_set = False
    for part in _PARTS.findall(pattern):
        if part[0] == "\\" and len(part) == 2 and part[1].isalpha() and part[1] not in _SAME_ESCAPES:
            replacement = _escape(part[1], in_set)
        elif "(?i" in written and _has_longer_form("" if in_set else written[-1], part):
            replacement = None
        elif in_set:
            replacement = None if part in ("[", "[^", "&&") else part  # a set within a set
        elif part in ("^", "$"):  # of every line, not of the text
            replacement = r"(?:\A|(?<=\n)(?!\Z))" if part == "^" else r"(?=\n|\Z)"
        elif part.startswith("(?"):
            replacement = part if part in ("(?i", "(?-i") else None
        elif part in "iI" and "(?i" in written:  # in Python this letter also matches the Turkish İ and ı
            replacement = None
        elif part[0] == "{" and part[-1] == "+":
            # A possessive quantifier in Python, a repeated repeat in Oniguruma.
            low = part[1:-2].split(",")[0] or "0"
            replacement = f"{{{low},}}" if low in ("0", "1") and part != "{0}+" else None
        else:
            replacement = part
        if replacement is None:
            raise ConfigError(
                f"{part!r} in the pattern {pattern!r:.200} does not mean the same in Python as in `tokenizers`; "
                "write it in another way."
            )
        in_set = part.startswith("[") or in_set if part != "]" else False
        written.append(replacement)
    return "".join(written)


def _has_longer_form(before: str, part: str) -> bool:
    return (before + part).lower() in _FOLDED_PAIRS or (not part.isascii() and part.casefold() != part)


def _escape(letter: str, in_set: bool) -> str | None:
    if in_set:
        return _WORD if letter == "w" else None
    word, other = f"[{_WORD}²³¹¼½¾]", f"[^{_WORD}²³¹¼½¾]"  # six more, outside a set
    border = f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"
    return {"w": word, "W": other, "b": border}.get(letter)
