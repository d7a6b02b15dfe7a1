"""The 256 printable symbols."""

import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.byte_symbols import BYTES_IN_ID_ORDER, from_symbols, to_symbols


def test_every_byte_has_its_own_symbol_and_comes_back():
    data = bytes(range(256))
    symbols = to_symbols(data)
    assert len(set(symbols)) == 256
    assert all(symbol.isprintable() and not symbol.isspace() for symbol in symbols)
    assert from_symbols(symbols, where="test") == data


def test_bytes_in_id_order_are_sorted_by_their_symbol():
    assert [to_symbols(token) for token in BYTES_IN_ID_ORDER] == sorted(to_symbols(bytes(range(256))))


def test_a_foreign_character_is_an_error_naming_file_token_and_place():
    with pytest.raises(TokenizerError, match=r"some\.json .* got '▁' at character 1 of token 'a▁b'"):
        from_symbols("a▁b", where="some.json")
