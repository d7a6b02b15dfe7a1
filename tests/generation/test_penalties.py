import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core import seed
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.penalties import (
    ban_repeated_ngrams,
    penalize_counts,
    penalize_loops,
    penalize_repetition,
)
from scratchlm.generation.samplers import keep_top_n_sigma

few_ids = st.lists(st.integers(0, 3), max_size=24)


def greedy(logits, prompt=(1,), *, n=1, tokenizer=None, vocab_size=None, **settings):
    config = GenerationConfig(**settings)
    row = TokenChooser(config, prompt, generator=None, tokenizer=tokenizer, vocab_size=vocab_size)
    return [row.choose(logits).id for _ in range(n)]


def test_repetition_makes_seen_tokens_less_likely_whatever_their_sign():
    logits = torch.tensor([2.0, -2.0, 2.0, -2.0])
    assert penalize_repetition(logits, [0, 1, 1, 0], 2.0).tolist() == [1.0, -4.0, 2.0, -2.0]
    assert penalize_repetition(logits, [], 2.0).tolist() == logits.tolist() == [2.0, -2.0, 2.0, -2.0]


def test_presence_counts_once_and_frequency_each_time():
    out = penalize_counts(torch.zeros(5), [3, 3, 1], presence=1.0, frequency=0.25)
    assert out.tolist() == [0.0, -1.25, 0.0, -1.5, 0.0]


def test_presence_and_frequency_ignore_the_prompt():
    logits = torch.tensor([0.0, 2.0, 1.5, 0.0])
    assert greedy(logits, prompt=[1, 1, 1], n=3, presence_penalty=1.0) == [1, 2, 1]
    assert greedy(logits, prompt=[1, 1, 1], n=4, frequency_penalty=1.0) == [1, 2, 1, 2]


@given(ids=few_ids, window=st.integers(1, 8))
def test_penalties_with_a_window_are_those_of_the_last_tokens(ids, window):
    logits = torch.linspace(-1.0, 2.0, 4)
    settings = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25}

    def scores(tokens, **changes):
        row = TokenChooser(GenerationConfig(**settings, **changes), (1,), generator=None, tokenizer=None)
        for token in tokens:
            row.took(token)
        return row.scores(logits)

    recent = [1, *ids][-window:]
    expected = penalize_repetition(logits, recent, 1.5)
    expected = penalize_counts(expected, ids[-window:], presence=0.5, frequency=0.25)
    torch.testing.assert_close(scores(ids, penalty_window=window), expected)
    torch.testing.assert_close(scores(ids, penalty_window=len(ids) + 1), scores(ids))


@given(ids=few_ids, size=st.integers(1, 4))
def test_a_text_never_repeats_a_banned_sequence(ids, size):
    banned = {i for i, s in enumerate(ban_repeated_ngrams(torch.zeros(4), ids, size).tolist()) if s < 0}
    grams = {tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)}
    assert banned == {i for i in range(4) if tuple([*ids, i][-size:]) in grams and len(ids) >= size}


def plain_dry(
    ids: list[int], multiplier: float, base: float, allowed: int, breakers: set[int]
) -> list[float]:
    """DRY by its definition: try every length and every place."""
    out = [0.0] * 4
    for token in set(range(4)) - breakers:
        longest = 0
        for n in range(1, len(ids)):
            ending = ids[-n:]
            places = range(len(ids) - n)
            repeats = any(ids[i : i + n] == ending and ids[i + n] == token for i in places)
            if repeats and not breakers & set(ending):
                longest = n
        if longest >= allowed:
            out[token] = -multiplier * base ** (longest - allowed)
    return out


@given(ids=few_ids, allowed=st.integers(1, 4), breakers=st.sets(st.integers(0, 3), max_size=2))
def test_dry_penalises_the_longest_repetition_that_a_token_would_continue(ids, allowed, breakers):
    out = penalize_loops(
        torch.zeros(4, dtype=torch.float64),
        ids,
        multiplier=0.8,
        base=1.75,
        allowed_length=allowed,
        breakers=breakers,
    )
    torch.testing.assert_close(out.tolist(), plain_dry(ids, 0.8, 1.75, allowed, breakers))


def test_a_dry_penalty_beyond_every_float_excludes_the_token():
    logits = torch.tensor([0.0, 9.0, 1.0])
    loop = [1] * 40
    assert greedy(logits, loop, dry_multiplier=1.0, dry_base=1e30) == [2]


def test_dry_breaks_a_loop_of_a_greedy_text():
    """A model that always continues 0 1 2 with 0 1 2: with DRY the text leaves the loop."""
    table = torch.eye(4)[[1, 2, 0, 0]] * 2
    row = TokenChooser(GenerationConfig(dry_multiplier=0.8), [0], generator=None, tokenizer=None)
    text = [0]
    for _ in range(12):
        text.append(row.choose(table[text[-1]]).id)
    assert text[:5] == [0, 1, 2, 0, 1]
    assert text != [i % 3 for i in range(13)]


def test_the_breakers_of_dry_are_found_through_the_tokenizer(make_tokenizer):
    tokenizer = make_tokenizer([b"a", b"b", b":", b"c"])
    logits = torch.tensor([0.0, 0.0, 0.0, 1.0])
    prompt = [0, 2, 3, 1, 0, 2]  # a : c b a :, so that c would continue the repeated sequence "a :"
    settings = {"dry_multiplier": 5.0, "dry_allowed_length": 1}
    assert greedy(logits, prompt, **settings) == [0]
    assert greedy(logits, prompt, tokenizer=tokenizer, **settings) == [3]  # the colon breaks it


def test_banned_forced_and_biased_tokens():
    logits = torch.tensor([0.0, 1.0, 3.0, 2.0])
    assert greedy(logits, banned_ids=(2,)) == [3]
    assert greedy(logits, forced_ids=(0, 1), n=3) == [0, 1, 2]
    assert greedy(logits, logit_bias={0: 4.0}) == [0]


def test_a_forced_token_has_the_models_own_probability():
    logits = torch.tensor([0.0, 1.0, 3.0, 2.0])
    row = TokenChooser(GenerationConfig(forced_ids=(0,)), [1], generator=None, tokenizer=None)
    assert row.choose(logits).prob == pytest.approx(float(logits.softmax(0)[0]))


def test_a_text_does_not_end_before_the_minimum():
    logits = torch.tensor([0.0, 1.0, 3.0])
    assert greedy(logits, n=3, min_new_tokens=2, stop_ids=(2,)) == [1, 1, 2]


def test_when_rules_exclude_every_token_it_is_an_error():
    for temperature in (0.0, 1.0):  # the settings are named, not the weights
        with pytest.raises(DataError, match="-inf for every token; change banned_ids"):
            greedy(torch.zeros(3), banned_ids=(0, 1, 2), temperature=temperature)


def test_an_id_without_a_token_cannot_be_forced():
    with pytest.raises(ConfigError, match="forced_ids must be ids of tokens, got 3"):
        TokenChooser(
            GenerationConfig(forced_ids=(1, 3)), [1], generator=None, tokenizer=None, forbidden_ids=[3]
        )


@pytest.mark.parametrize(
    "settings", [{"banned_ids": (4,)}, {"forced_ids": (4,)}, {"logit_bias": {4: 1.0}}], ids=str
)
def test_ids_outside_the_vocabulary_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"ids in {name} must be 0 to 3, got 4"):
        greedy(torch.zeros(4), vocab_size=4, **settings)


@pytest.mark.parametrize("settings", [{"best_of": 2, "temperature": 1.0}, {"num_beam_groups": 2}], ids=str)
def test_decoders_of_whole_texts_are_refused_here(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} compares whole texts"):
        greedy(torch.zeros(4), **settings)


# top-n-sigma and Mirostat, which transformers does not have


@pytest.mark.parametrize("n", [0.5, 1.0, 3.0])
def test_top_n_sigma_keeps_scores_near_the_best_at_any_temperature(n):
    logits = torch.randn(200, generator=seed.generator(1), dtype=torch.float64)
    limit = float(logits.max() - n * logits.std(correction=0))
    kept = keep_top_n_sigma(logits, n).isfinite()
    assert torch.equal(kept, logits >= limit)
    assert torch.equal(keep_top_n_sigma(logits / 3.7, n).isfinite(), kept)
    excluded = torch.cat([logits, torch.full((20,), -math.inf)])
    assert torch.equal(keep_top_n_sigma(excluded, n).isfinite()[:200], kept)


@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_mirostat_holds_the_surprise_at_its_target(tau):
    config = GenerationConfig(temperature=1.0, mirostat_tau=tau, mirostat_eta=0.2)
    row = TokenChooser(config, [1], generator=seed.generator(0), tokenizer=None)
    surprises = []
    for number in range(600):
        logits = torch.randn(300, generator=seed.generator(number)) * 1.5  # an entropy of about 6.7 bits
        probs = row.distribution(logits)
        surprises.append(-math.log2(probs[row.choose(logits).id]))
    mean = sum(surprises[50:]) / len(surprises[50:])
    assert mean == pytest.approx(tau, abs=0.1)  # without it 6.7; the integral of the error is bounded


def test_mirostats_limit_follows_its_published_update():
    """Version 2 of Basu et al.: mu starts at 2 tau and falls by eta times the error of each draw."""
    config = GenerationConfig(temperature=1.0, mirostat_tau=1.5, mirostat_eta=0.3)
    row = TokenChooser(config, [1], generator=seed.generator(0), tokenizer=None)
    mu = 3.0
    for number in range(30):
        logits = torch.randn(40, generator=seed.generator(number), dtype=torch.float64)
        probs = logits.softmax(0)
        kept = torch.where((-probs.log2() <= mu) | (probs == probs.max()), probs, 0.0)
        kept /= kept.sum()
        torch.testing.assert_close(row.distribution(logits), kept)
        mu -= 0.3 * (-math.log2(kept[row.choose(logits).id]) - 1.5)
