"""What the book's loops share."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from scratchlm.book.loops import losses_of_both


def test_both_losses_are_read_without_dropout_and_training_goes_on():
    model = nn.Dropout(0.5)
    loaders = [DataLoader([(torch.ones(2), torch.ones(2) * i)] * 4) for i in (1, 2)]

    def loader_loss(loader, model, device, *, num_batches):
        assert not model.training
        assert not torch.is_grad_enabled()
        return float(next(iter(loader))[1].sum()) + num_batches

    assert losses_of_both(loader_loss, model, *loaders, "cpu", 3) == (5.0, 7.0)
    assert model.training
