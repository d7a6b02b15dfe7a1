"""Training: from text to merges to a tokenizer."""

import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, DataError, TokenizerError
from scratchlm.tokenizers.bpe_trainer import count_pieces, learn_merges, train_bpe
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
    assert "the vocabulary has 259 tokens instead of 1000" in caplog.text


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
        ([], 300, {}, DataError, "no text to train a tokenizer on"),
        (["", ""], 300, {}, DataError, "no text to train a tokenizer on"),
        (["ok", "a\ud800"], 300, {}, TokenizerError, r"U\+D800 at character 1"),
    ],
)
def test_what_cannot_be_trained_is_refused(texts, vocab_size, options, error, message):
    with pytest.raises(error, match=message):
        train_bpe(texts, vocab_size, **options)


@settings(deadline=None, database=None, max_examples=150)
@given(
    st.dictionaries(st.text("aab é", min_size=1, max_size=12), st.integers(1, 5), max_size=12),
    st.integers(1, 3),
)
def test_a_minimum_frequency_only_ends_the_list_of_merges_earlier(piece_counts, min_frequency):
    every = learn_merges(piece_counts, 30)
    frequent = learn_merges(piece_counts, 30, min_frequency=min_frequency)
    assert frequent == every[: len(frequent)]


def test_the_order_of_the_text_does_not_matter():
    counts = {"".join(random.Random(i).choices("abc", k=6)): i % 4 + 1 for i in range(40)}
    backwards = dict(reversed(counts.items()))
    assert learn_merges(counts, 40) == learn_merges(backwards, 40)


@pytest.mark.parametrize(
    ("pieces", "first"),
    [
        (["xy", "ab"], (b"a", b"b")),  # the smaller left id
        (["ac", "ab"], (b"a", b"b")),  # then the smaller right id
        ([" a", "ab"], (b"a", b"b")),  # by GPT-2's ids: a is 64, the space 220, though as bytes 32 < 97
        (["bcbc", "aaa"], (b"a", b"a")),  # overlapping pairs count twice, bc occurs twice: a tie
    ],
)
def test_of_equally_frequent_pairs_the_smaller_ids_come_first(pieces, first):
    assert learn_merges(dict.fromkeys(pieces, 1), 1) == [first]


def test_progress_is_reported_after_every_merge():
    reported = []
    learn_merges({"abcd": 1}, 2, progress=lambda done, wanted: reported.append((done, wanted)))
    assert reported == [(1, 2), (2, 2)]
