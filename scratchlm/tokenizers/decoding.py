"""Turn ids back into tokens or text: a whole list, or ids that arrive one at a time."""

import codecs
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import SupportsIndex, TypeVar

from scratchlm.core.errors import TokenizerError

T = TypeVar("T")


def look_up(table: Mapping[int, T], ids: Iterable[SupportsIndex]) -> list[T]:
    """The table's entry for each id; ids may be integers of any library, such as NumPy or torch.

    Raises: TokenizerError naming the first id outside the table and its position.
    """
    ids = list(ids)
    try:
        return [table[id_] for id_ in ids]  # type: ignore[index]
    except (KeyError, TypeError):
        return [_look_up_one(table, id_, position) for position, id_ in enumerate(ids)]


def _look_up_one(table: Mapping[int, T], id_: SupportsIndex, position: int) -> T:
    try:
        return table[operator.index(id_)]
    except (KeyError, TypeError):
        raise TokenizerError(
            f"ids must be integers from 0 to {max(table, default=-1)}, got {id_!r} at position {position}; "
            "check that they come from this tokenizer, and pass one row of a batch at a time."
        ) from None


class StreamDecoder:
    """Decode ids one at a time, holding back the bytes of an incomplete character.

    A token of byte-level BPE may end in the middle of a character: an emoji is often three tokens. The texts
    returned by all calls, joined, equal `decode` of all ids.
    Raises: TokenizerError for an id outside the vocabulary.
    """

    def __init__(self, bytes_of_id: Mapping[int, bytes]) -> None:
        self._bytes_of_id = bytes_of_id
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id_: int) -> str:
        """The text completed by this id; often empty in the middle of a character."""
        return self._decoder.decode(look_up(self._bytes_of_id, [id_])[0])

    def flush(self) -> str:
        """End the text and start a new one: U+FFFD for an incomplete character, otherwise nothing."""
        return self._decoder.decode(b"", final=True)


class WordStreamDecoder:
    """Decode the ids of a word tokenizer one at a time; spaces depend on two neighbouring words only."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._last: list[int] = []

    def follow(self, ids: Sequence[int]) -> None:
        """Continue after ids that are already shown: the next word gets its space from the last of them."""
        self._last = list(ids[-1:])

    def push(self, id_: int) -> str:
        """The word, with the space between it and the word before."""
        known = len(self._decode(self._last))
        text = self._decode([*self._last, id_])
        self._last = [id_]
        return text[known:]

    def flush(self) -> str:
        """End the text; there is nothing to return."""
        self._last = []
        return ""
