"""Bytes per token, fertility and what is kept, against counts by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.tokenizers.measures import tokenizer_measures
from scratchlm.tokenizers.word import WordTokenizer


def test_one_byte_per_token_and_as_many_tokens_as_bytes(tiny_tokenizer):
    measures = tokenizer_measures(tiny_tokenizer, "été xyz")
    assert measures.bytes_per_token == pytest.approx(9 / measures.n_tokens)
    assert measures.fertility == measures.n_tokens / 2


@given(st.text(min_size=1))
def test_a_byte_level_vocabulary_keeps_every_character(tiny_tokenizer, text):
    measures = tokenizer_measures(tiny_tokenizer, text)
    assert measures.characters_kept == 1
    assert measures.words_kept == (1 if text.split() else None)
    assert 0 < measures.vocabulary_used <= 1


def test_a_word_vocabulary_loses_unknown_words_and_white_space():
    tokenizer = WordTokenizer({"the": 0, "cat": 1, "<|unk|>": 2, "dog": 3})
    measures = tokenizer_measures(tokenizer, "the  cat qqqq")
    assert measures.words_kept == pytest.approx(2 / 3)
    assert measures.characters_kept == pytest.approx((3 + 3 + 2) / 13)  # two spaces of three, and no q
    assert measures.vocabulary_used == 3 / 4


def test_ids_that_are_known_already_are_not_made_again(tiny_tokenizer):
    text = "the cat sat"
    assert tokenizer_measures(tiny_tokenizer, text, ids=tiny_tokenizer.encode(text)) == tokenizer_measures(
        tiny_tokenizer, text
    )


def test_white_space_has_no_words(tiny_tokenizer):
    measures = tokenizer_measures(tiny_tokenizer, " \n")
    assert (measures.fertility, measures.words_kept, measures.characters_kept) == (None, None, 1)


def test_an_empty_text_is_an_error(tiny_tokenizer):
    with pytest.raises(DataError, match="empty"):
        tokenizer_measures(tiny_tokenizer, "")
