"""What the book's loops share."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from scratchlm.book.loops import loader_functions


def test_both_losses_are_read_without_dropout_and_training_goes_on():
    model = nn.Dropout(0.5)
    loaders = [DataLoader([(torch.ones(2), torch.ones(2) * i)] * 4) for i in (1, 2)]
    n_batches = 0

    def batch_loss(inputs, targets, model, device):
        nonlocal n_batches
        n_batches += 1
        assert not model.training
        assert not torch.is_grad_enabled()
        return targets.sum()

    _, evaluate_model = loader_functions(batch_loss)
    assert evaluate_model(model, *loaders, "cpu", 3) == (2.0, 4.0)
    assert n_batches == 6
    assert model.training
