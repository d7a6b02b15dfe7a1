"""A part learns, another form is saved: the part comes back to the last bit, and to no other model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from scratchlm.core.errors import CheckpointError
from scratchlm.training.partial_weights import learning_weights, restore_learning_weights

HERE = Path("step-1")


def weights(**shapes):
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def test_weights_come_back_to_the_last_bit_beside_other_tensors():
    before, after = weights(a=(3, 2), b=(2,)), weights(a=(3, 2), b=(2,))
    state = {**learning_weights(before), "optimizer.a.step": torch.tensor(1.0)}
    restore_learning_weights(after, state, where=HERE)
    for name, weight in before.items():
        assert torch.equal(after[name], weight)
        assert after[name].requires_grad


@pytest.mark.parametrize(
    "now", [{"a": (3, 2)}, {"a": (3, 2), "b": (3,)}, {"a": (3, 2), "b": (2,), "c": (1,)}]
)
def test_other_weights_are_refused_and_nothing_is_changed(now):
    here = weights(**now)
    before = {name: weight.clone() for name, weight in here.items()}
    with pytest.raises(CheckpointError, match=r"found [bc] to be .* there and .* here \(1 differ\)"):
        restore_learning_weights(here, learning_weights(weights(a=(3, 2), b=(2,))), where=HERE)
    assert all(torch.equal(here[name], before[name]) for name in here)
