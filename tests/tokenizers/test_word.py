"""Word tokenizers, as in the book and without its losses."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import TokenizerError, UnknownWordError
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import (
    LosslessWordTokenizer,
    StrictWordTokenizer,
    WordTokenizer,
    build_vocab,
    split_words,
)


@pytest.fixture
def verdict(real_data) -> str:
    return (real_data / "text" / "the-verdict.txt").read_text(encoding="utf-8")


# The figures and ids of the next tests are those printed in the book, chapter 2.


def test_the_verdict_has_the_number_of_words_that_the_book_counts(verdict):
    words = split_words(verdict)
    assert len(words) == 4690
    assert len(build_vocab(words)) == 1130
    vocab = build_vocab(words, special_tokens=[END_OF_TEXT, UNKNOWN])
    assert len(vocab) == 1132
    assert (vocab[END_OF_TEXT], vocab[UNKNOWN]) == (1130, 1131)


def test_the_strict_tokenizer_gives_the_ids_of_the_book(verdict):
    tokenizer = StrictWordTokenizer(build_vocab(verdict))
    ids = tokenizer.encode('"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.')
    expected = [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    assert ids == expected
    assert (
        tokenizer.decode(ids)
        == '" It\' s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
    )


def test_the_tokenizer_with_unknown_words_gives_the_ids_of_the_book(verdict):
    tokenizer = WordTokenizer(build_vocab(verdict, special_tokens=[END_OF_TEXT, UNKNOWN]))
    ids = tokenizer.encode("Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace.")
    assert ids == [1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7]
    expected = "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the <|unk|>."
    assert tokenizer.decode(ids) == expected


def test_an_unknown_word_is_a_key_error_that_names_it(verdict):
    tokenizer = StrictWordTokenizer(build_vocab(verdict))
    with pytest.raises(KeyError) as caught:
        tokenizer.encode("Hello, do you like tea. Is this-- a test?")
    assert isinstance(caught.value, UnknownWordError)
    assert "'Hello' is not among" in str(caught.value)


def test_only_the_strict_tokenizer_leaves_a_space_before_colons():
    vocab = build_vocab("a:b;c,", special_tokens=[UNKNOWN])
    assert StrictWordTokenizer(vocab).decode(StrictWordTokenizer(vocab).encode("a:b;c,")) == "a : b ; c,"
    assert WordTokenizer(vocab).decode(WordTokenizer(vocab).encode("a:b;c,")) == "a: b; c,"


def test_without_an_unknown_token_an_unknown_word_is_an_error():
    with pytest.raises(UnknownWordError, match=r"'<\|unk\|>' is not among"):
        WordTokenizer(build_vocab("a b")).encode("c")


def test_real_text_comes_back_from_the_lossless_tokenizer(verdict):
    tokenizer = LosslessWordTokenizer.from_text(verdict[:15000] + string.printable)
    assert tokenizer.decode(tokenizer.encode(verdict)) == verdict
    ids = tokenizer.encode(verdict[:15000])
    assert len(ids) == len(split_words(verdict[:15000], keep_space=True))


@settings(deadline=None, database=None, max_examples=200)
@given(st.text("abcde .,:'\"-\n\t_<|>"))
def test_the_lossless_tokenizer_loses_no_text_of_known_characters(text):
    tokenizer = LosslessWordTokenizer.from_text(
        'abe\'s cad: "bed" -- a_c,\tde.\n<|>-', special_tokens=[END_OF_TEXT]
    )
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_character_that_the_lossless_tokenizer_lacks_is_an_error():
    with pytest.raises(UnknownWordError, match="'é' is not among"):
        LosslessWordTokenizer.from_text("cafe").encode("café")


def test_special_tokens_in_lossless_text_are_ids_only_when_allowed():
    tokenizer = LosslessWordTokenizer.from_text("the end of text <|>", special_tokens=[END_OF_TEXT])
    text = f"the end{END_OF_TEXT}the text {END_OF_TEXT} "
    assert tokenizer.end_of_text_id not in tokenizer.encode(text)
    assert tokenizer.encode(text, allowed_special={END_OF_TEXT}).count(tokenizer.end_of_text_id) == 2


def test_an_allowed_special_token_is_found_inside_a_word():
    tokenizer = WordTokenizer(build_vocab("a b", special_tokens=[END_OF_TEXT, UNKNOWN]))
    assert tokenizer.encode(f"a{END_OF_TEXT}b") == [tokenizer.str_to_int[UNKNOWN]]
    assert tokenizer.encode(f"a{END_OF_TEXT}b", allowed_special={END_OF_TEXT}) == [0, 2, 1]


def test_white_space_never_becomes_a_word():
    assert split_words(" a\u3000 \n\tb\x1c") == ["a", "b"]


def test_text_that_holds_a_special_token_does_not_number_it_twice():
    vocab = build_vocab(f"a {END_OF_TEXT} b", special_tokens=[END_OF_TEXT])
    assert vocab == {"a": 0, "b": 1, END_OF_TEXT: 2}


@pytest.mark.parametrize("vocab", [{"a": 1}, {"a": 0, "b": 0}, {"a": 0, "b": 2}, {"a": "0"}, {"a": [0]}])
def test_ids_with_holes_or_doubles_are_refused(vocab):
    with pytest.raises(TokenizerError, match="number the words with build_vocab"):
        WordTokenizer(vocab)


def test_an_id_outside_the_vocabulary_is_an_error():
    with pytest.raises(TokenizerError, match="got 7 at position 0"):
        StrictWordTokenizer(build_vocab("a b")).decode([7])


def test_the_fingerprint_tells_words_and_kinds_apart():
    vocab = build_vocab("a b", special_tokens=[UNKNOWN])
    kinds = (StrictWordTokenizer, WordTokenizer, LosslessWordTokenizer)
    prints = {kind(vocab).fingerprint for kind in kinds} | {WordTokenizer(build_vocab("a c")).fingerprint}
    assert len(prints) == 4
    assert WordTokenizer(dict(reversed(vocab.items()))).fingerprint == WordTokenizer(vocab).fingerprint
