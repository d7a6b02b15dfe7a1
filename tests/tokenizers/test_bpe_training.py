"""Training from text to tokenizer."""

import logging

import pytest

from scratchlm.core.errors import ConfigError, DataError, TokenizerError
from scratchlm.tokenizers.bpe_training import count_pieces, train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT


def test_training_reaches_the_vocabulary_size_asked_for(tiny_corpus):
    tokenizer = train_bpe([tiny_corpus], 300)
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode(tiny_corpus)) < len(tiny_corpus) / 1.5


def test_documents_may_come_from_a_generator_or_as_one_string(tiny_corpus):
    expected = train_bpe([tiny_corpus], 300).merges
    assert train_bpe((line for line in [tiny_corpus]), 300).merges == expected
    assert train_bpe(tiny_corpus, 300).merges == expected


def test_text_that_is_too_poor_gives_a_smaller_vocabulary_and_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_bpe(["abab"], 1000)
    assert tokenizer.vocab_size == 256 + 2 + 1
    assert "the vocabulary has 259 tokens, not 1000" in caplog.text


def test_rare_pairs_stay_apart(tiny_corpus):
    merges = train_bpe([tiny_corpus, "zq zq"], 400, min_frequency=3).merges
    assert (b"z", b"q") not in merges


def test_a_special_token_in_the_text_separates_documents(tiny_corpus):
    joined = train_bpe([tiny_corpus + END_OF_TEXT + tiny_corpus], 300)
    assert joined.merges == train_bpe([tiny_corpus, tiny_corpus], 300).merges


def test_pieces_are_counted_over_all_documents():
    assert count_pieces(["the cat", "a cat"]) == {"the": 1, " cat": 2, "a": 1}


@pytest.mark.parametrize(
    ("texts", "vocab_size", "options", "error", "message"),
    [
        (["text"], 256, {}, ConfigError, "choose at least 257"),
        (["text"], 300, {"special_tokens": ["<s>", "<s>"]}, ConfigError, "must be distinct"),
        ([], 300, {}, DataError, "needs text, found none"),
        (["", ""], 300, {}, DataError, "needs text, found none"),
        (["ok", "a\ud800"], 300, {}, TokenizerError, r"U\+D800 at character 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(texts, vocab_size, options, error, message):
    with pytest.raises(error, match=message):
        train_bpe(texts, vocab_size, **options)
