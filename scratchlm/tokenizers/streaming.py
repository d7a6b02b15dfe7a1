"""Showing text while ids still arrive one by one."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence

from scratchlm.tokenizers.lookup import look_up


class StreamDecoder:
    """Turns ids into text as they come, holding back the bytes of a character that is not complete yet.

    A token of byte-level BPE may end in the middle of a character: an emoji is often three tokens. What all
    calls return, joined, equals `decode` of all ids.
    Raises: TokenizerError for an id outside the vocabulary.
    """

    def __init__(self, bytes_of_id: Mapping[int, bytes]) -> None:
        self._bytes_of_id = bytes_of_id
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id_: int) -> str:
        """The text that this id completes; often empty in the middle of a character."""
        return self._decoder.decode(look_up(self._bytes_of_id, [id_])[0])

    def flush(self) -> str:
        """The end of the text: U+FFFD when it stops inside a character, else nothing. Then start afresh."""
        return self._decoder.decode(b"", final=True)


class WordStreamDecoder:
    """The same for word tokenizers, whose spaces depend on two neighbouring words only."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._last: list[int] = []

    def follow(self, ids: Sequence[int]) -> None:
        """Go on after these ids, which are shown already: the next word gets its space from the last of them."""
        self._last = list(ids[-1:])

    def push(self, id_: int) -> str:
        """The word, with the space between it and the word before."""
        known = len(self._decode(self._last))
        text = self._decode([*self._last, id_])
        self._last = [id_]
        return text[known:]

    def flush(self) -> str:
        """Nothing is ever held back; the next word starts a new text."""
        self._last = []
        return ""
