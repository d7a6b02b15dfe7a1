"""Continuations scored in batches as one by one, and cut into tokens as the harness cuts them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.likelihood import EncodedPair, continuation_likelihoods, encode_pair
from scratchlm.model import GPTModel
from scratchlm.tokenizers.word import WordTokenizer
from tests.tolerances import n_roundings, rounding


def random_pairs(lengths, vocab_size=61):
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, vocab_size, (sum(length),), generator=draw).tolist() for length in lengths]
    return [
        EncodedPair(context=tuple(row[:n]), continuation=tuple(row[n:])) for row, (n, _) in zip(rows, lengths)
    ]


def same_nats(expected: float, model):
    """A sum of log-probabilities, each a softmax over the vocabulary, up to rounding."""
    n = n_roundings(model.config) + model.config.vocab_size
    return pytest.approx(expected, rel=0, abs=rounding(max(1.0, abs(expected)), n=n))


LENGTHS = [(1, 1), (3, 2), (1, 9), (7, 4), (2, 2), (11, 1)]


def test_neither_batch_nor_padding_changes_a_score(tiny_model):
    pairs = random_pairs(LENGTHS)
    alone = [continuation_likelihoods(tiny_model, [pair])[0] for pair in pairs]
    for batch_size in (2, 6):
        together = continuation_likelihoods(tiny_model, pairs, batch_size=batch_size)
        for one, other in zip(alone, together):
            assert other.log_prob == same_nats(one.log_prob, tiny_model)
            assert other.is_greedy == one.is_greedy


def test_a_score_is_the_sum_of_the_log_probabilities_of_its_tokens(tiny_model):
    for pair in random_pairs(LENGTHS):
        ids = torch.tensor([pair.context + pair.continuation])
        with torch.no_grad():
            log_probs = F.log_softmax(tiny_model(ids)[0, :-1], dim=-1)
        n = len(pair.continuation)
        expected = log_probs[-n:].gather(1, ids[0, -n:, None]).sum().item()
        found = continuation_likelihoods(tiny_model, [pair])[0]
        assert found.log_prob == same_nats(expected, tiny_model)
        assert (found.n_tokens, found.n_cropped) == (n, 0)


def test_what_the_model_would_write_is_greedy(tiny_model):
    ids = [5, 9]
    with torch.no_grad():
        for _ in range(4):
            ids.append(int(tiny_model(torch.tensor([ids]))[0, -1].argmax()))
    good = EncodedPair(context=tuple(ids[:2]), continuation=tuple(ids[2:]))
    bad = dataclasses.replace(good, continuation=(*ids[2:-1], (ids[-1] + 1) % 61))
    assert [one.is_greedy for one in continuation_likelihoods(tiny_model, [good, bad])] == [True, False]


def test_a_context_beyond_the_model_loses_its_beginning_and_says_so(tiny_model):
    long, short = random_pairs([(30, 3), (1, 1)])
    cropped = dataclasses.replace(long, context=long.context[-10:])  # 12 are read, the last only predicted
    scores = continuation_likelihoods(tiny_model, [long, cropped, short])
    assert scores[0].log_prob == same_nats(scores[1].log_prob, tiny_model)
    assert [one.n_cropped for one in scores] == [20, 0, 0]


def test_what_cannot_be_scored_is_an_error(tiny_model):
    for lengths in ((0, 1), (1, 0), (1, 13)):
        with pytest.raises(DataError, match="continuation of 1 to 12"):
            continuation_likelihoods(tiny_model, random_pairs([lengths]))
    with pytest.raises(ConfigError, match="batch_size"):
        continuation_likelihoods(tiny_model, random_pairs([(1, 1)]), batch_size=0)


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("The cat sat", " on the mat"),
        ("The cat sat ", "on the mat"),
        ("", "The cat"),
        ("a\n\n", "b"),
        ("  ", "b"),
    ],
)
def test_the_two_parts_are_the_tokens_of_the_whole(tiny_tokenizer, context, continuation):
    pair = encode_pair(tiny_tokenizer, context, continuation)
    text = tiny_tokenizer.decode(
        [i for i in pair.context + pair.continuation if i != tiny_tokenizer.end_of_text_id]
    )
    assert text == context + continuation
    assert tiny_tokenizer.decode(pair.context).strip() in (context.strip(), "<|endoftext|>")


def test_pairs_are_cut_as_lm_evaluation_harness_cuts_them(tiny_tokenizer):
    model = pytest.importorskip("lm_eval.api.model", reason="lm-eval is not installed")

    class Theirs(model.TemplateLM):
        eot_token_id = tiny_tokenizer.end_of_text_id

        def tok_encode(self, string, add_special_tokens=None, **kwargs):
            return tiny_tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests, **kwargs): ...
        def loglikelihood_rolling(self, requests, disable_tqdm=False): ...
        def generate_until(self, requests, disable_tqdm=False): ...

    for context, continuation in [
        ("The cat sat", " on"),
        ("The cat ", "sat on"),
        ("on the m", "at on the log and on the mat"),
        ("x \n", " y"),
    ]:
        context_ids, continuation_ids = Theirs()._encode_pair(context, continuation)
        pair = encode_pair(tiny_tokenizer, context, continuation)
        assert (list(pair.context), list(pair.continuation)) == (context_ids, continuation_ids)


def test_a_continuation_that_melts_into_its_context_is_an_error(tiny_tokenizer):
    with pytest.raises(DataError, match="adds no token"):
        encode_pair(tiny_tokenizer, "The ca", "t")


def test_an_empty_context_needs_a_token_to_begin_with():
    with pytest.raises(DataError, match="context is empty"):
        encode_pair(WordTokenizer({"a": 0, "<|unk|>": 1}), "", "a")


def test_training_mode_is_left_as_it_was(tiny_config):
    model = GPTModel(tiny_config).train()
    continuation_likelihoods(model, random_pairs([(2, 2)]))
    assert model.training
