"""Find added tokens in a text before it is split.

A special token, such as the one between two documents, is matched only if the caller allows it. Any other added
token, such as Qwen's `<think>`, is matched wherever its string occurs.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import regex

from scratchlm.tokenizers.normalizers import Normalizer, normalize

_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")  # \w in `tokenizers`
_SPACE = regex.compile(r"\p{White_Space}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedToken:
    """A string with its own id, and the rules for matching it.

    special: not ordinary text; matched only when it is allowed.
    single_word: matched only where no letter, digit or underscore is adjacent.
    lstrip, rstrip: the match includes the white space before, after it.
    normalized: matched after the text is normalized.
    """

    content: str
    id: int
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


class AddedTokenFinder:
    """Split text at added tokens: first in the original text, then in the normalized text.

    Of several tokens that match at one place the longest is used.
    Source: AddedVocabulary in Hugging Face `tokenizers`.
    """

    def __init__(self, tokens: Iterable[AddedToken], normalizers: Sequence[Normalizer] = ()) -> None:
        self._normalizers = normalizers
        tokens = list(tokens)
        self._raw = {token.content: token for token in reversed(tokens) if not token.normalized}
        found_later = [token for token in reversed(tokens) if token.normalized]
        self._later = {normalize(token.content, normalizers): token for token in found_later}
        self._later.pop("", None)
        self._raw_pattern, self._later_pattern = _any_of(self._raw), _any_of(self._later)
        self._all_special = all(token.special for token in tokens)

    def parts(self, text: str, allowed: Collection[str]) -> Iterator[tuple[str, int | None]]:
        """Parts of the normalized text with None, and added tokens with their ids, in order."""
        if self._all_special and not allowed:
            if text and (text := normalize(text, self._normalizers)):
                yield text, None
            return
        for part, id_ in _cut(text, self._raw, self._raw_pattern, allowed):
            if id_ is None:
                part = normalize(part, self._normalizers)
                yield from _cut(part, self._later, self._later_pattern, allowed)
            else:
                yield part, id_


def _any_of(tokens: Collection[str]) -> regex.Pattern[str] | None:
    longest_first = sorted(tokens, key=len, reverse=True)
    return regex.compile("|".join(map(regex.escape, longest_first))) if tokens else None


def _cut(
    text: str, tokens: dict[str, AddedToken], pattern: regex.Pattern[str] | None, allowed: Collection[str]
) -> Iterator[tuple[str, int | None]]:
    end = 0
    for match in pattern.finditer(text) if pattern else ():
        token = tokens[match.group()]
        start, stop = match.span()
        if token.special and token.content not in allowed:
            continue
        if token.single_word and (_WORD.match(text, stop) or (start and _WORD.match(text, start - 1))):
            continue
        while token.lstrip and start > end and _SPACE.match(text, start - 1):
            start -= 1
        while token.rstrip and _SPACE.match(text, stop):
            stop += 1
        if end < start:
            yield text[end:start], None
        yield text[start:stop], token.id
        end = stop
    if end < len(text):
        yield text[end:], None
