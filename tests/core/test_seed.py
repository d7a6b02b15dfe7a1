"""Randomness that can be written down and taken up again."""

import random

import numpy as np
import pytest
import torch

from scratchlm.core.errors import CheckpointError
from scratchlm.core.seed import generator, restore_rng_state, rng_state, seed_everything


def draws() -> tuple[float, float, list[float]]:
    return random.random(), float(np.random.random()), torch.rand(3).tolist()


@pytest.mark.parametrize("seed", [0, 123, 2**40])
def test_the_same_seed_gives_the_same_numbers_everywhere(seed):
    seed_everything(seed)
    first = draws()
    seed_everything(seed)
    assert draws() == first
    seed_everything(seed + 1)
    assert draws() != first


def test_a_generator_of_its_own_disturbs_nobody():
    seed_everything(1)
    undisturbed = draws()
    seed_everything(1)
    own = torch.rand(3, generator=generator(7))
    assert draws() == undisturbed
    torch.testing.assert_close(torch.rand(3, generator=generator(7)), own, rtol=0, atol=0)


def test_a_restored_state_goes_on_with_the_same_dropout():
    state = rng_state()
    first = torch.nn.functional.dropout(torch.ones(1000), 0.5)
    torch.rand(10)
    restore_rng_state(state)
    torch.testing.assert_close(torch.nn.functional.dropout(torch.ones(1000), 0.5), first, rtol=0, atol=0)


def test_a_state_without_the_cpus_is_refused():
    with pytest.raises(CheckpointError, match=r"rng\.cpu"):
        restore_rng_state({})
