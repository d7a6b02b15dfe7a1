"""Appendix A's network and data set."""

import torch
from torch.utils.data import DataLoader

from scratchlm.book.appendix_a import NeuralNetwork, ToyDataset


def test_the_network_has_the_book_s_parameters_and_weights():
    torch.manual_seed(123)
    model = NeuralNetwork(50, 3)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2213  # appendix A, section A.5
    torch.testing.assert_close(
        model.layers[0].weight[0, :3], torch.tensor([-0.0577, 0.0047, -0.0702]), atol=5e-5, rtol=0
    )
    torch.manual_seed(123)
    torch.testing.assert_close(
        model(torch.rand(1, 50)), torch.tensor([[-0.1262, 0.1080, -0.1792]]), atol=5e-5, rtol=0
    )


def test_a_loader_gives_rows_and_labels():
    features, labels = torch.arange(10.0).view(5, 2), torch.tensor([0, 0, 0, 1, 1])
    data = ToyDataset(features, labels)
    batches = list(DataLoader(data, batch_size=2, drop_last=True))
    assert (len(data), len(batches)) == (5, 2)
    assert torch.cat([batch[0] for batch in batches]).equal(features[:4])
