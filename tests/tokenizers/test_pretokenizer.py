"""Cutting text into pieces."""

import sys
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers import pretokenizer
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.patterns import GPT2_PATTERN
from scratchlm.tokenizers.pretokenizer import PreTokenizer, check_unicode, steps_of
from scratchlm.tokenizers.word import LosslessWordTokenizer, WordTokenizer

REFERENCE = regex.compile(GPT2_PATTERN)
# Characters that take different branches of the pattern, and every kind of white space.
TEXT = st.text(
    st.sampled_from("abZ09.'`_-sdtmrevl \t\n\r\x0b\x0c\x1c\x1f\x00\x85\xa0\u2003\u2028\u3000éß²½٣語—’…😀")
)


def pieces(text: str, pattern: str = GPT2_PATTERN) -> list[str]:
    return [piece for chunk in PreTokenizer(steps_of(pattern)).pieces(text) for piece in chunk]


@settings(deadline=None, database=None, max_examples=300)
@given(TEXT)
def test_the_fast_path_cuts_like_the_plain_pattern(text):
    assert pieces(text) == REFERENCE.findall(text)


@settings(deadline=None, database=None, max_examples=300)
@given(TEXT)
def test_cutting_into_chunks_never_moves_a_border(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretokenizer, "_CHUNK_CHARS", 3)
        assert pieces(text) == REFERENCE.findall(text)


def test_every_character_belongs_to_the_same_kind_on_both_paths():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if pretokenizer._PLAIN_TEXT.fullmatch(character):
            text = f"a{character}{character}1{character} !{character}"
            assert pretokenizer._PLAIN_PATTERN.findall(text) == REFERENCE.findall(text)


def test_long_text_comes_in_chunks_of_bounded_size():
    chunks = list(PreTokenizer().chunks("some words and more\n" * 10_000))
    assert len(chunks) > 10
    assert max(map(len, chunks)) < 20_000


def test_text_without_a_safe_place_to_cut_stays_whole():
    assert list(PreTokenizer().chunks("a" * 100_000)) == ["a" * 100_000]
    assert list(PreTokenizer().chunks(" " * 100_000)) == [" " * 100_000]


def test_another_pattern_loses_nothing_between_its_matches():
    assert pieces("ab12cd!", r"\d") == ["ab", "1", "2", "cd!"]


def test_a_pattern_with_groups_still_yields_whole_matches():
    assert pieces("aab", "(a)(a)|b") == ["aa", "b"]


def test_a_broken_pattern_is_a_config_error():
    with pytest.raises(ConfigError, match="is not a valid regular expression"):
        PreTokenizer(steps_of("("))


def test_contractions_numbers_and_spaces_are_cut_as_gpt2_does():
    assert pieces("I'll pay  $12,50!?\n\n ok") == [
        *("I", "'ll", " pay", " ", " $", "12", ",", "50", "!?", "\n\n", " ok")
    ]


def test_a_lone_surrogate_is_an_error_with_its_place():
    with pytest.raises(TokenizerError, match=r"lone surrogate U\+D83D at character 2"):
        check_unicode("ab\ud83d")


def test_assigned_letters_and_numbers_follow_the_unicode_standard():
    # The oldest Python we run on knows Unicode 13; what was assigned then never changes its kind.
    for code in range(0x3000):
        kind = unicodedata.category(chr(code))[0]
        expected = [chr(code)] if kind in "LN" else []
        assert regex.findall(r"[\p{L}\p{N}]", chr(code)) == expected or kind == "C"


@pytest.mark.parametrize("wrong", [123, None, b"bytes", ["text"]])
def test_what_is_no_text_is_our_error(wrong):
    for tokenizer in (BPETokenizer([]), WordTokenizer({"a": 0}), LosslessWordTokenizer({"a": 0})):
        with pytest.raises(TokenizerError, match="a tokenizer needs text, got"):
            tokenizer.encode(wrong)
