from __future__ import annotations

import pytest
import torch
from torch import nn

from scratchlm.model import evaluation_mode


def mixed_model() -> nn.Sequential:
    """A model in training whose first part was frozen in evaluation mode."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    model[0].eval()
    return model


def test_every_module_returns_to_the_mode_it_had():
    model = mixed_model()
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_the_mode_returns_after_an_error():
    model = mixed_model()
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert model.training
    assert torch.is_grad_enabled()


def test_no_gradients_are_recorded_inside():
    layer = nn.Linear(2, 2)
    with evaluation_mode(layer):
        assert not layer(torch.ones(1, 2)).requires_grad
    assert layer(torch.ones(1, 2)).requires_grad
