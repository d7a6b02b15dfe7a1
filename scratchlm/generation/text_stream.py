"""Decode ids to text while they are being generated, one at a time."""

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from scratchlm.core.protocols import Tokenizer


class TextStream(Protocol):
    """A decoder that takes ids one by one; its pieces joined are the text of all ids."""

    def push(self, token_id: int, /) -> str:
        """Add an id; return the text that is certain."""

    def flush(self) -> str:
        """Return what is left, when no more ids follow."""


class RedecodingStream:
    """A stream decoder for any tokenizer: it decodes all ids again and returns what is new.

    A replacement character at the end is held back, because the next id may complete it. The cost is
    quadratic in the length, so tokenizers with a faster method have their own `stream_decoder`.
    """

    def __init__(self, tokenizer: Tokenizer, *, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(after)
        self._n_given = len(tokenizer.decode(self._ids)) if after else 0

    def push(self, token_id: int, /) -> str:
        """Add an id; return the text that is certain."""
        self._ids.append(token_id)
        return self._new_part(self._tokenizer.decode(self._ids).rstrip("\ufffd"))

    def flush(self) -> str:
        """Return what is left, when no more ids follow."""
        return self._new_part(self._tokenizer.decode(self._ids))

    def _new_part(self, text: str) -> str:
        piece = text[self._n_given :]
        self._n_given = max(self._n_given, len(text))
        return piece


def stream_decoder(tokenizer: Tokenizer, *, after: Sequence[int] = ()) -> TextStream:
    """Make the tokenizer's own stream decoder, or one that works with any tokenizer.

    `after` has the ids that are already shown, such as the prompt; a word tokenizer needs them to determine
    the space before the first new word.
    """
    make_own = getattr(tokenizer, "stream_decoder", None)
    if make_own is None:
        return RedecodingStream(tokenizer, after=after)
    stream = cast(TextStream, make_own())
    follow = getattr(stream, "follow", None)
    if follow is not None:
        follow(after)
    return stream


def without_lead(pieces: Iterator[str], lead: str) -> Iterator[str]:
    """Drop `lead` from the beginning of a text that arrives in pieces, if the text begins with it.

    Example:
        >>> list(without_lead(iter(["A", ": y", "es"]), "A: "))
        ['y', 'es']
    """
    held = ""
    for piece in pieces:
        held += piece
        if len(held) >= len(lead):
            break
    yield held.removeprefix(lead)
    yield from pieces
