import functools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core import seed
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.beam import beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.generation.samplers import (
    apply_temperature,
    check_scores,
    draw_as_torch,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    sampling_steps,
)

# few distinct values, so that ties are the rule rather than the exception
scores = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0, 2.5]), min_size=2, max_size=12)
# the book, chapter 5: logits of a vocabulary of nine words
TOY_WORDS = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
TOY_LOGITS = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


# top-k


@given(values=scores, k=st.integers(1, 14))
def test_top_k_keeps_exactly_k_and_none_better_is_dropped(values, k):
    (ids,) = kept(keep_top_k(torch.tensor([values]), k))
    best_first = sorted(range(len(values)), key=lambda i: (-values[i], i))  # the plain rule, ties by id
    assert ids == sorted(best_first[:k])


@given(values=scores, k=st.integers(1, 14))
def test_top_k_leaves_what_it_keeps_as_it_is_and_its_argument_untouched(values, k):
    logits = torch.tensor([values])
    out = keep_top_k(logits, k)
    assert logits.tolist() == [values]
    assert out is not logits
    assert torch.equal(out[out.isfinite()], logits[out.isfinite()])


def test_top_k_is_per_row():
    assert kept(keep_top_k(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), 1)) == [[2], [0]]


def test_top_3_of_the_books_toy_vocabulary_has_its_probabilities():
    probs = keep_top_k(TOY_LOGITS, 3).softmax(dim=-1)[0]
    expected = [0.0615, 0, 0, 0.5775, 0, 0, 0, 0.3610, 0]  # the book, chapter 5, section 5.3.2
    torch.testing.assert_close(probs, torch.tensor(expected), atol=5e-5, rtol=0)


def test_top_k_below_one_is_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        keep_top_k(torch.zeros(1, 3), 0)


# top-p


@given(values=scores, p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_p(values, p):
    logits = torch.tensor([values], dtype=torch.float64)
    (ids,) = kept(keep_top_p(logits, p))
    probs = logits.softmax(dim=-1)[0].tolist()
    best_first = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert sorted(best_first[: len(ids)]) == ids  # the most likely ones
    assert sum(probs[i] for i in ids) >= p - 1e-9  # they reach p
    assert sum(probs[i] for i in best_first[: len(ids) - 1]) < p + 1e-9  # one fewer would not


@given(values=scores)
def test_top_p_of_one_keeps_everything(values):
    assert kept(keep_top_p(torch.tensor([values]), 1.0)) == [list(range(len(values)))]


def test_top_p_keeps_one_token_however_small_p_is():
    assert kept(keep_top_p(torch.tensor([[1.0, 9.0, 2.0]]), 1e-12)) == [[1]]


def test_top_p_works_after_top_k():
    logits = keep_top_k(torch.tensor([[0.0, 0.0, 0.0, 0.0, 5.0]]), 2)
    assert kept(keep_top_p(logits, 0.999)) == [[0, 4]]
    assert kept(keep_top_p(logits, 0.5)) == [[4]]


@pytest.mark.parametrize("p", [0.0, 1.1, math.nan])
def test_top_p_and_min_p_outside_their_range_are_refused(p):
    for keep in (keep_top_p, keep_min_p):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            keep(torch.zeros(1, 3), p)


# min-p


@given(values=scores, p=st.floats(0.01, 1.0))
def test_min_p_keeps_what_is_at_least_that_share_of_the_best(values, p):
    logits = torch.tensor([values], dtype=torch.float64)
    probs = logits.softmax(dim=-1)[0]
    (ids,) = kept(keep_min_p(logits, p))
    clear = [i for i in range(len(values)) if abs(probs[i] / probs.max() - p) > 1e-9]  # not on the border
    assert [i for i in clear if i in ids] == [i for i in clear if probs[i] >= p * probs.max()]
    assert int(probs.argmax()) in ids


# temperature and repetition


def test_temperature_divides_the_log_odds():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    hot = apply_temperature(logits, 2.0).log_softmax(dim=-1)
    torch.testing.assert_close(hot, (logits / 2).log_softmax(dim=-1))


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-300])
def test_a_tiny_temperature_is_greedy_and_never_nan(temperature):
    cold = apply_temperature(torch.tensor([[100.0, 300.0, -200.0]]), temperature).softmax(dim=-1)
    assert cold.tolist() == [[0.0, 1.0, 0.0]]


def test_temperature_zero_is_refused_here():
    with pytest.raises(ConfigError, match=r"above 0 here, got 0; take the argmax"):
        apply_temperature(torch.zeros(1, 3), 0)


def filtered(logits: torch.Tensor, config: GenerationConfig) -> torch.Tensor:
    """The scores after the sampling steps that the config sets."""
    return functools.reduce(lambda scores, step: step[1](scores), sampling_steps(config), logits)


def test_filters_are_applied_in_the_documented_order():
    config = GenerationConfig(temperature=2.0, top_k=3, top_p=0.8, min_p=0.1)
    step_by_step = keep_top_k(apply_temperature(TOY_LOGITS, 2.0), 3)
    step_by_step = keep_min_p(keep_top_p(step_by_step, 0.8), 0.1)
    assert torch.equal(filtered(TOY_LOGITS, config), step_by_step)


def test_without_settings_nothing_is_filtered():
    assert sampling_steps(GenerationConfig()) == []


# the draw


def draws(logits: torch.Tensor, n: int, seed_number: int) -> list[int]:
    generator = seed.generator(seed_number)
    return [draw_as_torch(logits[0], generator) for _ in range(n)]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [  # the book, chapter 5, section 5.3.1: 1000 draws with seed 123
        (1.0, {"forward": 582, "toward": 343, "closer": 73, "inches": 2}),
        (0.1, {"forward": 985, "toward": 15}),
    ],
)
def test_a_thousand_draws_from_the_toy_vocabulary_are_the_books(temperature, expected):
    ids = draws(apply_temperature(TOY_LOGITS, temperature), 1000, seed_number=123)
    assert Counter(TOY_WORDS[i] for i in ids) == expected


def test_a_thousand_hot_draws_have_the_books_counts():
    ids = draws(apply_temperature(TOY_LOGITS, 5.0), 1000, seed_number=123)
    assert sorted(Counter(ids).values(), reverse=True) == [239, 227, 165, 103, 75, 71, 46, 42, 32]


def test_draws_follow_the_softmax():
    """Chi-square: the seed is fixed, so this cannot fail by bad luck, only by a wrong distribution."""
    n, logits = 4000, torch.tensor([[1.0, 0.0, -1.0, 0.5, 2.0, 1.5, -0.5, 0.2, 0.9]])
    counts = Counter(draws(logits, n, seed_number=1))
    expected = (n * logits.softmax(dim=-1)[0]).tolist()
    chi_square = sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected))
    assert chi_square < 26.12  # 8 degrees of freedom, 99.9th percentile


def test_an_excluded_token_is_never_drawn():
    logits = keep_top_k(torch.zeros(1, 50), 3)
    assert set(draws(logits, 300, seed_number=0)) == {0, 1, 2}


BROKEN = {
    "NaN": [0.0, math.nan, math.inf],
    r"\+inf": [0.0, math.inf, 1.0],
    "-inf for every token": [-math.inf, -math.inf, -math.inf],
}


@pytest.mark.parametrize("found", BROKEN)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 1e-30, "top_p": 0.5},
        {"top_p": 0.5},
        {"min_p": 0.5},
        {"top_k": 2},
    ],
    ids=str,
)
def test_scores_that_are_not_finite_are_refused(settings, found):
    config = GenerationConfig(**settings)
    logits = torch.tensor([[1.0, 2.0, 3.0], BROKEN[found]])
    with pytest.raises(DataError, match=f"must be finite numbers, got {found}"):
        check_scores(filtered(logits, config))


@pytest.mark.parametrize("bias", [math.inf, math.nan])
def test_a_model_whose_weights_overflowed_writes_nothing(tiny_model, bias):
    with torch.no_grad():
        tiny_model.tok_emb.weight[3] = bias
        tiny_model.out_head.weight[5] = 1e38
    config = GenerationConfig(max_new_tokens=3)
    with pytest.raises(DataError, match="must be finite numbers, got"):
        generate_ids(tiny_model, [[3, 1]], config)
    with pytest.raises(DataError, match="must be finite numbers, got"):
        beam_search(tiny_model, [3, 1], config, n_beams=2)


def test_a_nucleus_too_small_for_float32_still_has_the_best_token():
    assert keep_top_p(torch.tensor([[1.0, 3.0, 2.0]]), 1e-320).isfinite().tolist() == [[False, True, False]]
