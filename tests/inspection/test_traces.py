import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.inspection.traces import token_probabilities
from scratchlm.model import cross_entropy_sum
from tests.tolerances import n_roundings, rounding

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def test_their_surprise_adds_up_to_the_loss(tiny_model):
    trace = token_probabilities(tiny_model, IDS)
    with torch.no_grad():
        loss_sum, n_targets = cross_entropy_sum(tiny_model(torch.tensor([IDS[:-1]])), torch.tensor([IDS[1:]]))
    assert len(trace) == n_targets
    surprise = -torch.tensor([entry.prob for entry in trace]).log().sum()
    torch.testing.assert_close(surprise, loss_sum)


def test_entries_name_their_token(tiny_model):
    trace = token_probabilities(tiny_model, IDS, n_prompt=3)
    assert [entry.id for entry in trace] == IDS[3:]
    whole = token_probabilities(tiny_model, IDS)[2:]  # a product of another height: rounded otherwise
    allowed = rounding(1.0, n=n_roundings(tiny_model.config))
    assert [entry.prob for entry in trace] == pytest.approx(
        [entry.prob for entry in whole], rel=0, abs=allowed
    )
    assert [entry.rank for entry in trace] == [entry.rank for entry in whole]


def test_alternatives_come_best_first_and_rank_counts_the_better_ones(tiny_model):
    for entry in token_probabilities(tiny_model, IDS, n_alternatives=61):
        ids, probs = zip(*entry.alternatives, strict=True)
        assert sorted(ids) == list(range(61))
        assert list(probs) == sorted(probs, reverse=True)
        assert sum(probs) == pytest.approx(1, abs=1e-5)
        assert ids[entry.rank] == entry.id
        assert probs[entry.rank] == entry.prob


def test_more_alternatives_than_tokens_are_all_tokens(tiny_model):
    assert len(token_probabilities(tiny_model, IDS, n_alternatives=1000)[0].alternatives) == 61


def test_a_greedy_text_is_the_models_first_choice_everywhere(tiny_model):
    result = generate_ids(tiny_model, [[7, 8]], GenerationConfig(max_new_tokens=8))[0]
    trace = token_probabilities(tiny_model, [7, 8, *result.ids], n_prompt=2)
    assert [entry.rank for entry in trace] == [0] * 8
    assert [entry.prob for entry in trace] == pytest.approx(result.probs, rel=1e-4)


def test_too_little_or_too_much_is_an_error(tiny_model):
    with pytest.raises(DataError, match="beyond the first 2, got 2"):
        token_probabilities(tiny_model, [1, 2], n_prompt=2)
    with pytest.raises(DataError, match="at most 12 tokens, got 13"):
        token_probabilities(tiny_model, [1] * 14)
    with pytest.raises(ConfigError, match="n_prompt must be at least 1, got 0"):
        token_probabilities(tiny_model, IDS, n_prompt=0)
