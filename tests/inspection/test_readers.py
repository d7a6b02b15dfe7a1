import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.inspection.readers import ClassReader, TokenReader, token_text
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

STATES = torch.arange(6.0).reshape(3, 2)
TASK = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 4}


def test_a_language_model_reads_the_prompt_and_chooses_at_its_end(tiny_tokenizer):
    reader = TokenReader(tiny_tokenizer)
    ids = tiny_tokenizer.encode("the cat")
    assert reader.ids("the cat") == ids
    assert reader.pool(STATES).tolist() == [[4.0, 5.0]]
    assert reader.followers([4, 5, 6], 9) == [5, 6, 9]
    assert [reader.number(reader.name(id_)) for id_ in ids] == ids


def test_a_target_of_several_tokens_is_an_error_that_names_them(tiny_tokenizer):
    with pytest.raises(ConfigError, match=r"target 'xy' must be one token, got 2 \('x', 'y'\)"):
        TokenReader(tiny_tokenizer).number("xy")
    with pytest.raises(ConfigError, match=r"got 0 \(none\)"):
        TokenReader(tiny_tokenizer).number("")


@pytest.mark.parametrize(
    ("settings", "n_ids", "pooled"),
    [
        ({}, 4, [[4.0, 5.0]]),
        ({"position": "first"}, 4, [[0.0, 1.0]]),
        ({"position": "mean"}, 4, [[2.0, 3.0]]),
        ({"width": 6}, 4, [[4.0, 5.0]]),  # padding after the last real token changes nothing
        ({"width": 6, "position": "last"}, 6, [[4.0, 5.0]]),  # as in the book: padding is text
    ],
)
def test_a_classifier_reads_as_it_was_trained(tiny_tokenizer, settings, n_ids, pooled):
    reader = ClassReader(tiny_tokenizer, TASK | settings)
    ids = reader.ids("the cat sat on the mat and the dog")
    assert len(ids) == n_ids
    assert ids[:4] == tiny_tokenizer.encode("the cat sat on the mat and the dog")[:4]
    assert reader.pool(STATES).tolist() == pooled
    assert reader.followers(ids, 1) == [1]


def test_classes_have_names_and_numbers(tiny_tokenizer):
    reader = ClassReader(tiny_tokenizer, TASK)
    assert (reader.name(1), reader.number("spam")) == ("spam", 1)
    with pytest.raises(ConfigError, match="no class 'spm'; did you mean 'spam'"):
        reader.number("spm")
    with pytest.raises(DataError, match="empty"):
        reader.ids(" ")


def test_a_token_that_is_no_text_is_shown_as_bytes(real_data):
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    pieces = [token_text(tokenizer, id_) for id_ in tokenizer.encode("a🙂")]
    assert pieces == ["a", "<F0><9F>", "<99><82>"]
    assert token_text(tokenizer, 50300) == "<id 50300>"
