"""The two merge loops against the rule, spelt out."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.bpe import number_tokens
from scratchlm.tokenizers.bpe_trainer import learn_merges
from scratchlm.tokenizers.merging import LONG_PIECE_BYTES, MergeTable, merge_long, merge_short


def merge_by_the_rule(data: bytes, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """One merge after the other in the order learned, each from left to right over the whole piece."""
    tokens = [bytes([byte]) for byte in data]
    for left, right in merges:
        merged: list[bytes] = []
        for token in tokens:
            if merged and merged[-1] == left and token == right:
                merged[-1] = left + right
            else:
                merged.append(token)
        tokens = merged
    return tokens


def learn_from(seed: int) -> list[tuple[bytes, bytes]]:
    generator = random.Random(seed)
    words = ("".join(generator.choices("aab", k=generator.randint(1, 12))) for _ in range(60))
    return learn_merges({word: generator.randint(1, 9) for word in words}, 40)


@settings(deadline=None, database=None, max_examples=200)
@given(st.integers(0, 20), st.text("ab", max_size=200))
def test_both_loops_follow_the_rule(seed, text):
    merges = learn_from(seed)
    vocab = number_tokens(merges)
    table = MergeTable(merges, vocab)
    expected = [vocab[token] for token in merge_by_the_rule(text.encode(), merges)]
    byte_ids = [vocab[bytes([byte])] for byte in text.encode()]
    assert merge_short(list(byte_ids), table) == expected
    assert merge_long(list(byte_ids), table) == expected


@pytest.mark.parametrize("n", [0, 1, LONG_PIECE_BYTES, LONG_PIECE_BYTES + 1])
def test_pieces_of_any_length_may_be_merged(n):
    merges = [(b"a", b"a")]
    vocab = number_tokens(merges)
    ids = MergeTable(merges, vocab).apply([vocab[b"a"]] * n)
    assert ids == [vocab[b"aa"]] * (n // 2) + [vocab[b"a"]] * (n % 2)


def test_two_merges_may_make_one_token_as_in_converted_files():
    merges = [(b"b", b"c"), (b"a", b"b"), (b"a", b"bc"), (b"ab", b"c"), (b"abc", b"abc")]
    vocab = {bytes([byte]): byte for byte in range(256)} | {
        b"bc": 256,
        b"ab": 257,
        b"abc": 258,
        b"abcabc": 259,
    }
    table = MergeTable(merges, vocab)
    for text in (b"abc", b"abcabc", b"ababcabcab"):
        assert merge_long(list(text), table) == merge_short(list(text), table)


@settings(deadline=None, database=None, max_examples=200)
@given(st.permutations(range(40)), st.text("ab", max_size=200))
def test_merges_in_any_order_are_applied_alike_by_both_loops(order, text):
    learned = learn_from(3)
    vocab = number_tokens(learned)
    merges = [learned[i] for i in order if i < len(learned)]
    ids = [vocab[bytes([byte])] for byte in text.encode()]
    table = MergeTable(merges, vocab)
    assert merge_long(list(ids), table) == merge_short(list(ids), table)


@pytest.mark.parametrize(
    ("merges", "vocab", "message"),
    [
        ([(b"a", b"b")], {}, r"merge number 0 .* vocabulary has no token b'ab'"),
        ([(b"ab", b"c")], {b"abc": 256}, r"merge number 0 .* vocabulary has no token b'ab'"),
    ],
)
def test_merges_of_what_is_no_token_are_named(merges, vocab, message):
    with pytest.raises(TokenizerError, match=message):
        MergeTable(merges, {bytes([byte]): byte for byte in range(256)} | vocab)
