"""Special tokens are ids only for those who ask."""

import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, check_allowed, split_on_special

SPECIAL = {END_OF_TEXT: 5, "<|end|>": 6}


def test_text_is_cut_at_allowed_special_tokens_only():
    parts = list(split_on_special(f"a<|end|>b{END_OF_TEXT}", {END_OF_TEXT}))
    assert parts == [("a<|end|>b", False), (END_OF_TEXT, True)]


def test_the_parts_always_join_to_the_text():
    text = f"{END_OF_TEXT}{END_OF_TEXT} a <|end|>\n{END_OF_TEXT}"
    assert "".join(part for part, _ in split_on_special(text, SPECIAL)) == text


def test_the_longer_of_two_overlapping_special_tokens_wins():
    assert list(split_on_special("<a><b>", {"<a>", "<a><b>"})) == [("<a><b>", True)]


def test_characters_with_a_meaning_in_patterns_are_literal():
    assert list(split_on_special("a.*b", {".*"})) == [("a", False), (".*", True), ("b", False)]


def test_the_word_all_allows_every_special_token():
    assert check_allowed("all", SPECIAL) == set(SPECIAL)


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        (END_OF_TEXT, r"must be a collection .* got the string"),
        (
            {"<|pad|>"},
            r"'<\|pad\|>' in allowed_special is not .* its special tokens are: '<\|endoftext\|>', '<\|end\|>'",
        ),
    ],
)
def test_an_allowed_token_that_could_never_match_is_an_error(allowed, message):
    with pytest.raises(TokenizerError, match=message):
        check_allowed(allowed, SPECIAL)
