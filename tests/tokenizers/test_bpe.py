"""The byte-level BPE tokenizer on small vocabularies of our own."""

import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers import bpe
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=80)
BYTES = {bytes([byte]): byte for byte in range(256)}


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    text = "The cat's mat -- the dog’s log; 12 bones, 120 stones… naïve café 語言 😀👩‍👩‍👧\n\n  <|end"
    return train_bpe([text * 3, "the theme of them then there " * 5], 400)


@settings(deadline=None, database=None, max_examples=300)
@given(TEXTS)
def test_any_text_comes_back_from_its_ids(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, database=None, max_examples=200)
@given(st.lists(st.integers(0, 399), max_size=60))
def test_any_ids_decode_to_their_bytes(tokenizer, ids):
    ids = [id_ % tokenizer.vocab_size for id_ in ids]
    data = b"".join(map(tokenizer.token_bytes, ids))
    assert tokenizer.decode_bytes(ids) == data
    assert tokenizer.decode(ids) == data.decode("utf-8", errors="replace")


def test_every_learned_token_encodes_to_itself(tokenizer):
    tokens = [left + right for left, right in tokenizer.merges]
    whole = [token for token in tokens if _is_text(token)]
    assert len(whole) > 20
    assert [tokenizer.encode(token.decode()) for token in whole] == [
        [tokenizer.vocab[token]] for token in whole
    ]


def _is_text(token: bytes) -> bool:
    try:
        return bool(token.decode())
    except UnicodeDecodeError:
        return False


@settings(deadline=None, database=None, max_examples=200)
@given(TEXTS)
def test_both_engines_give_equal_ids(tokenizer, text):
    fast = BPETokenizer(tokenizer.merges, special_tokens=tokenizer.special_tokens, engine="tiktoken")
    text = f"{text}{END_OF_TEXT}the{text} them"
    assert fast.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")


@pytest.mark.parametrize("character", [" ", "\n"])
def test_the_tiktoken_engine_survives_a_million_spaces(tokenizer, character):
    fast = BPETokenizer(tokenizer.merges, special_tokens=tokenizer.special_tokens, engine="tiktoken")
    text = f"word and{character * 1_000_000}the end"
    ids = fast.encode(text)
    assert fast.decode(ids) == text
    assert ids == tokenizer.encode(text)


def test_end_of_text_is_an_id_only_when_allowed(tokenizer):
    text = f"the cat{END_OF_TEXT}the dog"
    ordinary = tokenizer.encode(text)
    assert tokenizer.end_of_text_id not in ordinary
    assert tokenizer.decode(ordinary) == text
    allowed = tokenizer.encode(text, allowed_special={END_OF_TEXT})
    assert allowed == [*tokenizer.encode("the cat"), tokenizer.end_of_text_id, *tokenizer.encode("the dog")]
    assert tokenizer.decode(allowed) == text


def test_special_tokens_come_after_all_learned_tokens(tokenizer):
    assert tokenizer.special_tokens == {END_OF_TEXT: 256 + len(tokenizer.merges)}
    assert tokenizer.vocab_size == 256 + len(tokenizer.merges) + 1


@pytest.mark.parametrize("engine", ["python", "tiktoken"])
def test_a_lone_surrogate_is_an_error_with_its_place(tokenizer, engine):
    same = BPETokenizer(tokenizer.merges, engine=engine)
    with pytest.raises(TokenizerError, match=r"U\+DC80 at character 4"):
        same.encode("abcd\udc80")


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_an_error(tokenizer, bad):
    with pytest.raises(TokenizerError, match=f"got {bad} at position 1"):
        tokenizer.decode([5, bad])


def test_a_row_of_a_tensor_can_be_decoded(tokenizer):
    ids = tokenizer.encode("the cat")
    assert tokenizer.decode(torch.tensor(ids)) == "the cat"


def test_a_full_cache_changes_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr(bpe, "_CACHE_PIECES", 5)
    generator = random.Random(0)
    text = " ".join("".join(generator.choices("theman", k=4)) for _ in range(300))
    fresh = BPETokenizer(tokenizer.merges)
    assert fresh.encode(text) == tokenizer.encode(text)
    assert len(fresh._cache) <= 5


def test_a_caller_may_change_the_ids_it_got(tokenizer):
    before = tokenizer.encode("the")
    tokenizer.encode("the").append(7)
    assert tokenizer.encode("the") == before


@pytest.mark.parametrize("engine", ["python", "tiktoken"])
def test_a_tokenizer_can_be_sent_to_another_process(tokenizer, engine):
    original = BPETokenizer(tokenizer.merges, special_tokens=[END_OF_TEXT], engine=engine)
    original.encode("the cat")
    copy = pickle.loads(pickle.dumps(original))
    assert not copy._cache
    assert copy.encode("the cat sat") == original.encode("the cat sat")
    assert copy.fingerprint == original.fingerprint


def test_the_fingerprint_tells_tokenizers_apart_and_engines_not(tokenizer):
    same = BPETokenizer(tokenizer.merges, special_tokens=tokenizer.special_tokens, engine="tiktoken")
    assert same.fingerprint == tokenizer.fingerprint
    others = [
        BPETokenizer(tokenizer.merges[:-1], special_tokens=[END_OF_TEXT]),
        BPETokenizer(tokenizer.merges),
        BPETokenizer(tokenizer.merges, special_tokens=["<|end|>"]),
        BPETokenizer(tokenizer.merges, special_tokens=[END_OF_TEXT], pattern=r"\S+|\s+"),
    ]
    assert len({tokenizer.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_million_equal_letters_need_no_recursion(tokenizer):
    text = "a" * 1_000_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"merges": [], "engine": "rust"}, ConfigError, r'engine must be "python" or "tiktoken"'),
        ({"merges": [], "vocab": BYTES | {b"ab": 1 << 22}}, TokenizerError, "got 4194304 for b'ab'"),
        ({"merges": [], "vocab": BYTES | {b"ab": -1}}, TokenizerError, "got -1 for b'ab'"),
        ({"merges": [], "vocab": BYTES | {b"ab": 0}}, TokenizerError, "id 0 belongs to both"),
        ({"merges": [], "vocab": BYTES | {b"ab": "256"}}, TokenizerError, "got '256'"),
        ({"merges": [], "special_tokens": ["a"]}, TokenizerError, "equal to an ordinary token, got 'a'"),
        ({"merges": [], "special_tokens": [""]}, TokenizerError, "must not be empty"),
        ({"merges": [], "special_tokens": ["\ud800"]}, TokenizerError, "lone surrogate"),
        ({"merges": [(b"a", b"b"), (b"a", b"b")]}, TokenizerError, "makes b'ab' again"),
        (
            {"merges": [(b"a", b"b")], "pattern": r"\w+", "engine": "tiktoken"},
            ConfigError,
            "supports only GPT-2's rules",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        BPETokenizer(**arguments)
