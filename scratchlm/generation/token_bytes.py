"""The bytes and the text that each id of a tokenizer stands for."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from scratchlm.core.errors import TokenizerError
from scratchlm.core.protocols import Tokenizer

_KNOWN: WeakKeyDictionary[Tokenizer, list[bytes]] = WeakKeyDictionary()


def bytes_of_ids(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that each id adds to a text; b"" for special tokens and ids without text.

    With a tokenizer that writes spaces between words, a word's bytes begin with the space.
    """
    known = _KNOWN.get(tokenizer)
    if known is None:
        known = _KNOWN[tokenizer] = _find(tokenizer)
    return known


def text_of_token(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of one token alone; bytes that are no whole character become replacement characters."""
    try:
        return tokenizer.decode([token_id])
    except TokenizerError:  # an id without a token, such as padding of the vocabulary
        return ""


def bytes_of_token(tokenizer: Tokenizer, token_id: int) -> list[int]:
    """The bytes of one token."""
    known = getattr(tokenizer, "token_bytes", None)
    try:
        return list(known(token_id)) if known is not None else list(tokenizer.decode([token_id]).encode())
    except TokenizerError:
        return []


def ids_that_contain(tokenizer: Tokenizer, texts: Sequence[str]) -> frozenset[int]:
    """The ids whose bytes contain one of the texts."""
    wanted = [text.encode() for text in texts]
    return frozenset(
        token_id
        for token_id, token in enumerate(bytes_of_ids(tokenizer))
        if any(text in token for text in wanted)
    )


def writes_spaces(tokenizer: Tokenizer) -> bool:
    """Whether decoding puts a space between two words, which no token stands for."""
    ordinary = sorted({*range(tokenizer.vocab_size)} - {*tokenizer.special_tokens.values()})
    return any(
        tokenizer.decode([token_id, token_id]) != 2 * tokenizer.decode([token_id])
        for token_id in ordinary[-3:]  # the first ones may be punctuation
    )


def _find(tokenizer: Tokenizer) -> list[bytes]:
    special = {*tokenizer.special_tokens.values()}
    exact = getattr(tokenizer, "token_bytes", None)
    before: list[int] = []
    if exact is None and writes_spaces(tokenizer):
        before = [max({*range(tokenizer.vocab_size)} - special)]
    lead = len(tokenizer.decode(before))
    found = []
    for token_id in range(tokenizer.vocab_size):
        if token_id in special:
            found.append(b"")
        elif exact is not None:
            found.append(exact(token_id))
        else:
            text = tokenizer.decode([*before, token_id])[lead:]
            found.append(b"" if "\ufffd" in text else text.encode())  # part of a character
    return found
