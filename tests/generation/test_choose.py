import functools
import math

import pytest
import torch

from scratchlm.core import seed
from scratchlm.core.errors import DataError
from scratchlm.generation.choose import TokenChooser
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.samplers import best_ids, draw, sampling_steps
from scratchlm.generation.trace import RowTrace

V = 50


def chooser(prompt=(1, 2, 3), *, generator=None, forbidden_ids=(), trace=None, tokenizer=None, **settings):
    return TokenChooser(
        GenerationConfig(**settings),
        prompt,
        generator=generator,
        tokenizer=tokenizer,
        forbidden_ids=forbidden_ids,
        trace=trace,
    )


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(V, generator=seed.generator(0)) * 2


def test_greedy_takes_the_best_allowed_token_with_the_models_own_probability(logits):
    order = logits.argsort(descending=True).tolist()
    choice = chooser(forbidden_ids=order[:2]).choose(logits)
    masked = logits.clone()
    masked[order[:2]] = -math.inf
    assert choice.id == order[2]
    assert choice.prob == pytest.approx(float(masked.softmax(0)[order[2]]))


@pytest.mark.parametrize(
    "settings", [{"temperature": 1.3}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}], ids=str
)
def test_the_draws_follow_the_distribution_that_is_reported(logits, settings):
    row = chooser(generator=seed.generator(1), **settings)
    expected = row.distribution(logits)
    assert torch.equal(
        expected,
        functools.reduce(
            lambda s, step: step[1](s), sampling_steps(GenerationConfig(**settings)), logits
        ).softmax(0),
    )
    n = 2000
    counts = torch.bincount(torch.tensor([row.choose(logits).id for _ in range(n)]), minlength=V)
    assert not counts[expected == 0].any()
    is_usual = expected * n >= 5  # rarer tokens are counted together
    counts, means = counts[is_usual].double(), (expected * n)[is_usual].double()
    chi_square = float(((counts - means) ** 2 / means).sum())
    df = int(is_usual.sum()) - 1
    assert chi_square < df + 4 * math.sqrt(2 * df) + 8  # beyond the 99.99th percentile; the seed is fixed


def test_a_distribution_leaves_the_state_as_it_is_and_greedy_has_one_token(logits):
    row = chooser(repetition_penalty=2.0)
    before = row.distribution(logits)
    assert torch.equal(row.distribution(logits), before)
    assert before.sum() == 1.0
    assert int(before.argmax()) == row.choose(logits).id


def test_the_tokens_taken_are_seen_by_the_next_step(logits):
    row = chooser(repetition_penalty=100.0)
    first = row.choose(logits).id
    assert row.choose(logits).id != first
    assert first == int(logits.argmax())


def test_only_a_plain_greedy_choice_is_an_argmax():
    assert chooser().is_argmax
    assert chooser(top_k=3).is_argmax  # without effect at temperature 0
    assert not chooser(temperature=1.0).is_argmax
    assert not chooser(repetition_penalty=1.1).is_argmax
    assert not chooser(trace=RowTrace()).is_argmax


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_an_error(logits, settings, bad):
    logits[3] = bad
    with pytest.raises(DataError, match="must be finite numbers"):
        chooser(**settings).choose(logits)


def test_a_row_without_any_allowed_token_is_an_error(logits):
    with pytest.raises(DataError, match="-inf for every token"):
        chooser(forbidden_ids=range(V)).choose(logits)


def test_the_best_ids_have_the_plain_order_also_among_ties():
    values = torch.randint(0, 4, (6, 40), generator=seed.generator(3)).float()
    for k in (1, 7, 39, 40):
        plain = values.sort(dim=-1, descending=True, stable=True).indices[:, :k]
        assert torch.equal(best_ids(values, k), plain)


def test_a_draw_never_takes_an_excluded_token_at_either_end():
    scores = torch.full((9,), -math.inf)
    scores[4] = 0.0
    assert {draw(scores, seed.generator(i)) for i in range(50)} == {4}
