"""Plain BPE against the fast trainer and encoder."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_by_hand import PlainBPE
from scratchlm.tokenizers.bpe_trainer import count_pieces, learn_merges

TEXTS = st.text("aab é\n1.'s", max_size=60)


def merges_as_bytes(plain):
    return [(plain.tokens[left], plain.tokens[right]) for left, right in plain.merges]


@settings(deadline=None, database=None, max_examples=150)
@given(TEXTS)
def test_the_fast_trainer_learns_the_same_merges(text):
    assert learn_merges(count_pieces([text]), 30) == merges_as_bytes(PlainBPE.train(text, 30))


@settings(deadline=None, database=None, max_examples=150)
@given(st.text(max_size=40), TEXTS)
def test_the_fast_encoder_gives_the_same_ids(other, text):
    plain = PlainBPE.train(text, 30)
    fast = BPETokenizer(merges_as_bytes(plain))
    for sample in (text, other):
        assert fast.encode(sample) == plain.encode(sample)
        assert plain.decode(plain.encode(sample)) == sample


def test_a_story_is_encoded_alike(tiny_corpus):
    plain = PlainBPE.train(tiny_corpus, 60)
    assert len(plain.merges) == 60
    assert BPETokenizer(merges_as_bytes(plain)).encode(tiny_corpus) == plain.encode(tiny_corpus)


def test_bytes_that_are_no_text_become_a_replacement_character():
    plain = PlainBPE()
    assert plain.decode(plain.encode("é")[:1]) == "\ufffd"


def test_an_id_outside_the_vocabulary_is_an_error():
    with pytest.raises(IndexError):
        PlainBPE().decode([256])
