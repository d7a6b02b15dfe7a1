"""Loss over loaders and texts: every token once, whatever the windows and batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.loss import mean_loss, text_loss
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.pretraining import PretrainingTask


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=30, context_length=8, emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.5)
    return GPTModel(config).train()


@pytest.fixture
def ids():
    return np.random.Generator(np.random.PCG64(0)).integers(0, 30, size=61)


def by_hand(model, ids, *, stride, start):
    """Each token's loss with as much context as its window gives, one forward pass per token."""
    array = [start, *ids.tolist()]
    context, total = model.config.context_length, 0.0
    model.eval()
    for target in range(1, len(array)):
        first = 0
        while target > first + context:
            first += stride
        logits = model(torch.tensor([array[first:target]]))[0, -1]
        total += F.cross_entropy(logits, torch.tensor(array[target])).item()
    return total


@pytest.mark.parametrize("stride", [1, 3, 4, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 61])
def test_text_loss_counts_every_token_once_with_the_context_of_its_window(model, ids, stride, length):
    result = text_loss(model, ids[:length], n_bytes=100, start_id=0, stride=stride, batch_size=3)
    assert result.n_tokens == length
    assert result.loss_sum == pytest.approx(by_hand(model, ids[:length], stride=stride, start=0), rel=1e-5)


def test_text_loss_does_not_depend_on_the_batch_size(model, ids):
    losses = {
        size: text_loss(model, ids, n_bytes=100, start_id=0, stride=2, batch_size=size).loss
        for size in (1, 5, 64)
    }
    assert max(losses.values()) - min(losses.values()) < 1e-6


def test_without_a_start_the_first_token_is_not_counted(model, ids):
    assert text_loss(model, ids, n_bytes=100, start_id=None).n_tokens == len(ids) - 1


def test_bits_per_byte_and_perplexity_follow_from_the_sum(model, ids):
    result = text_loss(model, ids, n_bytes=200, start_id=0)
    assert result.bits_per_byte == pytest.approx(result.loss * len(ids) / 200 / math.log(2))
    assert result.perplexity == pytest.approx(math.exp(result.loss))


def test_evaluation_leaves_the_training_mode_and_gradients_alone(model, ids):
    text_loss(model, ids, n_bytes=1, start_id=0)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_mean_loss_weighs_targets_not_batches(model):
    full = Batch(inputs=torch.ones(2, 6, dtype=torch.long), targets=torch.full((2, 6), 3))
    sparse_targets = torch.full((2, 6), IGNORE_INDEX)
    sparse_targets[0, 0] = 5
    sparse = Batch(inputs=torch.full((2, 6), 2), targets=sparse_targets)
    task = PretrainingTask()
    both = mean_loss(model, [full, sparse], task)
    expected = (12 * mean_loss(model, [full], task) + mean_loss(model, [sparse], task)) / 13
    assert both == pytest.approx(expected)


def test_mean_loss_without_a_target_is_an_error(model):
    empty = Batch(inputs=torch.ones(1, 2, dtype=torch.long), targets=torch.full((1, 2), IGNORE_INDEX))
    with pytest.raises(DataError, match="unmasked target"):
        mean_loss(model, [empty], PretrainingTask())


def test_a_text_without_tokens_is_an_error(model):
    with pytest.raises(DataError, match="token to predict"):
        text_loss(model, [], n_bytes=0, start_id=0)


def test_a_stride_beyond_the_context_is_an_error(model, ids):
    with pytest.raises(ConfigError, match="stride"):
        text_loss(model, ids, n_bytes=1, start_id=0, stride=9)
