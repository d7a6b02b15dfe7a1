"""Ids of any library, ids that do not exist, and ids that arrive one at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.decoding import look_up
from scratchlm.tokenizers.word import LosslessWordTokenizer, StrictWordTokenizer, WordTokenizer, build_vocab

BYTES_ONLY = BPETokenizer([], special_tokens=["<|endoftext|>"])
VOCAB = build_vocab(["a", "b", ",", ":", "--", "'", " ", "\n"], special_tokens=["<|unk|>"])
TABLE = {0: "a", 1: "b"}


class Index:
    """An integer of another library, such as a torch scalar: it has an index only."""

    def __index__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "ids", [[0, 1], (0, 1), iter([0, 1]), np.array([0, 1], dtype=np.uint16), [0, Index()]]
)
def test_integers_of_any_library_are_ids(ids):
    assert look_up(TABLE, ids) == ["a", "b"]


@pytest.mark.parametrize("bad", [2, -1, 10**30, "1", None, [0]])
def test_an_id_outside_the_table_is_named_with_its_position(bad):
    with pytest.raises(TokenizerError, match=r"from 0 to 1, got .* at position 1"):
        look_up(TABLE, [0, bad])


@settings(deadline=None, database=None, max_examples=300)
@given(st.lists(st.integers(0, 256), max_size=30))
def test_streamed_text_equals_text_decoded_at_once(ids):
    decoder = BYTES_ONLY.stream_decoder()
    streamed = "".join(map(decoder.push, ids)) + decoder.flush()
    assert streamed == BYTES_ONLY.decode(ids)


def test_a_character_appears_when_its_last_byte_is_there():
    decoder = BYTES_ONLY.stream_decoder()
    assert [decoder.push(id_) for id_ in BYTES_ONLY.encode("é😀!")] == ["", "é", "", "", "", "😀", "!"]
    assert decoder.flush() == ""


def test_text_that_stops_inside_a_character_ends_with_a_replacement():
    decoder = BYTES_ONLY.stream_decoder()
    decoder.push(BYTES_ONLY.encode("é")[0])
    assert decoder.flush() == "\ufffd"
    assert decoder.push(BYTES_ONLY.encode("a")[0]) == "a"


def test_an_unknown_id_is_an_error_in_a_stream_too():
    with pytest.raises(TokenizerError, match="got 300"):
        BYTES_ONLY.stream_decoder().push(300)


@pytest.mark.parametrize("kind", [StrictWordTokenizer, WordTokenizer, LosslessWordTokenizer])
@settings(deadline=None, database=None, max_examples=200)
@given(ids=st.lists(st.integers(0, len(VOCAB) - 1), max_size=12))
def test_streamed_words_equal_words_decoded_at_once(kind, ids):
    # Tokens of white space occur in the lossless vocabulary only; the others never learn any.
    tokenizer = kind(VOCAB)
    if kind is not LosslessWordTokenizer:
        ids = [id_ for id_ in ids if not tokenizer.int_to_str[id_].isspace()]
    decoder = tokenizer.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", [StrictWordTokenizer, WordTokenizer, LosslessWordTokenizer])
def test_words_that_follow_others_get_the_space_between_them(kind):
    tokenizer = kind(VOCAB)
    for shown, new in (["a"], ["b", ","]), (["a", "b"], [":", "a"]), ([], ["a", "b"]):
        shown_ids, new_ids = ([VOCAB[word] for word in words] for words in (shown, new))
        decoder = tokenizer.stream_decoder()
        decoder.follow(shown_ids)
        text = "".join(map(decoder.push, new_ids)) + decoder.flush()
        assert tokenizer.decode(shown_ids) + text == tokenizer.decode(shown_ids + new_ids)
