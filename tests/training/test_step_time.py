"""The time of a step of a deep model, predicted from one block, is that of its real steps."""

import dataclasses

import pytest
import torch

from scratchlm.core.device import memory_bytes
from scratchlm.model.config import GPTConfig
from scratchlm.training import step_time
from scratchlm.training.config import TrainingConfig
from scratchlm.training.step_time import measure_program_bytes, measure_step_s

CPU = torch.device("cpu")
CONFIG = GPTConfig(vocab_size=64, context_length=32, emb_dim=32, n_heads=2, n_layers=3, drop_rate=0.0)
TRAINING = TrainingConfig(max_steps=1, batch_size=4)


def test_blocks_and_batches_add_their_own_time(monkeypatch):
    """The sum, from times that are given: 5 s with one batch, 7 s with two, a block 3 s and its update 1 s."""
    monkeypatch.setattr(step_time, "_trained_step_s", lambda config, training, n, *_: {1: 5.0, 2: 7.0}[n])
    monkeypatch.setattr(step_time, "_block_s", lambda *_: (3.0, 1.0))
    assert measure_step_s(CONFIG, TRAINING, device=CPU) == 5 + 2 * (3 + 1)
    four = dataclasses.replace(TRAINING, accumulate=4)
    assert measure_step_s(CONFIG, four, device=CPU) == 5 + 3 * 2 + 2 * (4 * 3 + 1)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_deeper_model_takes_longer(optimizer):
    training = dataclasses.replace(TRAINING, optimizer=optimizer)
    shallow, deep = (
        measure_step_s(dataclasses.replace(CONFIG, n_layers=n), training, device=CPU) for n in (1, 50)
    )
    assert 0 < shallow < deep


@pytest.mark.slow
def test_the_predicted_time_is_that_of_real_steps():
    """Within a factor of two even beside other programs; on a quiet machine it is within 25 %."""
    config = dataclasses.replace(CONFIG, n_layers=6, emb_dim=256, n_heads=4, context_length=128)
    predicted_s = measure_step_s(config, TRAINING, device=CPU)
    real_s = step_time._trained_step_s(config, TRAINING, 1, CPU)
    print(predicted_s, real_s, predicted_s / real_s)  # shown with -rP
    assert 0.5 < predicted_s / real_s < 2


def test_the_program_without_a_model_is_most_of_this_process():
    assert 100 << 20 < measure_program_bytes() <= memory_bytes() + (1 << 20)
