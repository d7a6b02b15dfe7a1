"""Pairs as batches: which tokens carry loss, what cutting leaves, and where the reference's numbers go."""

import logging

import numpy as np
import pytest
import torch

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.preference_batches import PreferenceExamples
from scratchlm.data.preference_rows import Preference
from scratchlm.data.prompt_templates import template
from scratchlm.tokenizers.bpe_trainer import train_bpe

PLAIN = template("plain")


def pair(chosen, rejected, request="say it"):
    return Preference(instruction=request, input="", chosen=chosen, rejected=rejected)


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["Q: say it\nA: the cat sat on the mat and the dog sat on the log"] * 3, 280)


def examples(tokenizer, *pairs, **settings):
    return PreferenceExamples(pairs, tokenizer, template=PLAIN, **settings)


def test_the_chosen_answers_come_first_and_only_answers_are_targets(tokenizer):
    given = [pair("the cat", "a dog sat"), pair("the mat on the log", "no", request="say")]
    batch = examples(tokenizer, *given).batch([1, 0])
    expected = [(given[1], "chosen"), (given[0], "chosen"), (given[1], "rejected"), (given[0], "rejected")]
    assert batch.n_targets == 2
    for row, (entry, side) in enumerate(expected):
        answer = getattr(entry, side)
        real = batch.inputs[row][batch.attention_mask[row]].tolist()
        assert tokenizer.decode(real) == PLAIN.full(entry.with_answer(answer))
        taken = batch.targets[row][batch.targets[row] != IGNORE_INDEX].tolist()
        assert taken == [*tokenizer.encode(f" {answer}"), tokenizer.end_of_text_id]
        first = int((batch.targets[row] != IGNORE_INDEX).nonzero()[0])
        assert batch.inputs[row][: first + 1].tolist() == tokenizer.encode(
            PLAIN.prompt(entry.with_answer(""))
        )
    assert (batch.targets[~batch.attention_mask] == IGNORE_INDEX).all()


def test_an_answers_text_never_becomes_a_special_token(tokenizer):
    batch = examples(tokenizer, pair("<|endoftext|> x", "y")).batch([0])
    assert (batch.targets == tokenizer.end_of_text_id).sum() == 2  # the true ends, and only these


def test_cut_pairs_are_counted_and_those_with_nothing_to_compare_left_out(tokenizer, caplog):
    n_prompt = len(tokenizer.encode(PLAIN.prompt(pair("", "").with_answer(""))))
    short = pair("cat", "dog")
    same_start = pair("the the the the cat", "the the the the dog")
    n_short = max(len(tokenizer.encode(f" {text}")) for text in ("cat", "dog"))
    limit = n_prompt + n_short
    with caplog.at_level(logging.WARNING):
        found = examples(tokenizer, short, same_start, pair("a", "b", request="say " * 60), max_length=limit)
    assert (len(found), found.n_left_out, found.n_truncated) == (1, 2, 2)
    assert "left out 2 of 3 pairs" in caplog.text
    assert found.batch([0]).inputs.shape[1] <= limit


def test_nothing_to_compare_is_an_error(tokenizer):
    with pytest.raises(DataError, match="got none in 1 pairs cut to 3 tokens"):
        examples(tokenizer, pair("a", "b"), max_length=3)
    with pytest.raises(DataError, match="needs pairs, got none"):
        examples(tokenizer)


def test_impossible_settings_are_refused(tokenizer):
    with pytest.raises(ConfigError, match="at least 1 token, got 0"):
        examples(tokenizer, pair("a", "b"), max_length=0)
    with pytest.raises(ConfigError, match="needs an end-of-text token"):
        examples(train_bpe(["a b"], 256, special_tokens=()), pair("a", "b"))


def test_the_references_numbers_follow_their_tokens_into_every_batch(tokenizer):
    given = [pair("the cat", "a dog sat"), pair("the mat on the log", "no"), pair("log", "cat")]
    found = examples(tokenizer, *given)
    assert found.batch([0]).reference is None
    rows = [[row.numpy() for row in found.batch([i]).targets] for i in range(3)]
    lengths = [[int(mask.sum()) for mask in found.batch([i]).attention_mask] for i in range(3)]
    found.set_reference(
        [
            tuple(row[:n].astype(np.float32) for row, n in zip(*two, strict=True))
            for two in zip(rows, lengths, strict=True)
        ]
    )
    batch = found.batch([2, 0, 1])
    expected = torch.where(batch.attention_mask, batch.targets, 0).float()
    assert torch.equal(batch.reference, expected)
    moved = batch.to("cpu")
    assert torch.equal(moved.reference, expected)
    assert moved.n_targets == 3


def test_pairs_are_put_together_by_their_longer_answer(tokenizer):
    found = examples(
        tokenizer, pair("the log " * 6, "a"), pair("a", "b"), pair("a", "the mat " * 5), pair("b", "c")
    )
    loader = BatchLoader(found, batch_size=2, shuffle=False, bucket_by_length=True)
    assert [sorted(batch.tolist()) for batch in loader.indices(0)] == [[1, 3], [0, 2]]
