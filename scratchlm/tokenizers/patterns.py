"""Regular expressions that come from tokenizer files: known ones, and how one is compiled safely."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

import regex

from scratchlm.core.errors import ConfigError

# Source: OpenAI's GPT-2, encoder.py. In words: an English contraction's end; letters, numbers or other signs
# with at most one space in front; white space, which leaves its last character to the word that follows.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# A pattern comes from a file: `(a{9999}){9999}` is short, and compiled it fills the memory of any machine.
_MAX_PATTERN_CHARS = 10_000
_MAX_REPEATS = 10_000  # all counts of a pattern multiplied; GPT-4's has one, {1,3}
_COUNT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


class Pattern(NamedTuple):
    """What a step looks for: a regular expression, or a string as it stands."""

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
        """The same in the format of `tokenizer.json`."""
        return {"Regex" if self.is_regex else "String": self.text}

    @property
    def compiled(self) -> regex.Pattern[str]:
        """The compiled expression; an empty string matches nothing, as in `tokenizers`.

        Raises: ConfigError when the pattern is no regular expression, or would fill the memory.
        """
        if self.is_regex:
            return compile_pattern(self.text)
        return compile_pattern(regex.escape(self.text) if self.text else "(?!)")


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile a pattern of a tokenizer's file.

    Which characters are letters and numbers is decided by the Unicode version of the `regex` package.
    Raises: ConfigError when the pattern is no regular expression, or would fill the memory.
    """
    _check_size(pattern)
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError) as cause:
        raise ConfigError(
            f"the pattern must be a regular expression, got {pattern!r:.500} ({cause}); correct it."
        ) from cause


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
