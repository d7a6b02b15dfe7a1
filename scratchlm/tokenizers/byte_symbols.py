"""Spell tokens in printable characters, one for each of the 256 bytes, as GPT-2's files and `tokenizer.json` do.

A token is a sequence of bytes, often not valid UTF-8 and often with a leading space. To write tokens in a
text file, GPT-2 maps every byte to a visible character: printable Latin-1 bytes to themselves, the other 68
bytes to the characters from U+0100 on. A space (byte 32) becomes Ġ and a newline Ċ.
"""

from scratchlm.core.errors import TokenizerError

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = tuple(byte for byte in range(256) if byte not in _PRINTABLE)

# GPT-2 numbers its byte tokens in this order: id 0 is "!", id 220 is the space.
BYTES_IN_ID_ORDER = tuple(bytes([byte]) for byte in _PRINTABLE + _HIDDEN)
ID_OF_BYTE = bytes((_PRINTABLE + _HIDDEN).index(byte) for byte in range(256))

_SYMBOL_OF_BYTE = {byte: chr(byte) for byte in _PRINTABLE}
_SYMBOL_OF_BYTE |= {byte: chr(256 + i) for i, byte in enumerate(_HIDDEN)}
_SYMBOLS = frozenset(_SYMBOL_OF_BYTE.values())
# For str.translate: a symbol becomes the Latin-1 character of its byte, another character one outside Latin-1.
_LATIN_OF_SYMBOL = dict.fromkeys(range(256), "\uffff")
_LATIN_OF_SYMBOL |= {ord(symbol): chr(byte) for byte, symbol in _SYMBOL_OF_BYTE.items()}


def to_symbols(token: bytes) -> str:
    """Spell a token's bytes in printable symbols.

    Example:
        >>> to_symbols(b" the")
        'Ġthe'
    """
    return token.decode("latin-1").translate(_SYMBOL_OF_BYTE)


def from_symbols(symbols: str, *, where: str) -> bytes:
    """The bytes of a token written in printable symbols; `where` names the file in an error.

    Raises: TokenizerError for a character that is not one of the 256 symbols.
    Example:
        >>> from_symbols("Ġthe", where="an example")
        b' the'
    """
    try:
        return symbols.translate(_LATIN_OF_SYMBOL).encode("latin-1")
    except UnicodeEncodeError as found:
        position = found.start
        raise TokenizerError(
            f"{where} must spell tokens in GPT-2's 256 byte symbols, got {symbols[position]!r} at "
            f"character {position} of token {symbols!r}; the file is damaged or belongs to another kind of "
            "tokenizer."
        ) from None


def is_spelt_in_symbols(token: str) -> bool:
    """Whether every character of a token is the symbol of a byte."""
    return _SYMBOLS.issuperset(token)
