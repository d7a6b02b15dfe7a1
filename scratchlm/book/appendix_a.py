"""Appendix A, introduction to PyTorch: its three-layer network and its toy data set."""

from torch import Tensor, nn
from torch.utils.data import Dataset

WIDTHS = (30, 20)  # of the two hidden layers


class NeuralNetwork(nn.Module):
    """A classifier with two hidden layers.

    Shapes: x (B, num_inputs) -> logits (B, num_outputs).
    """

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        first, second = WIDTHS
        self.layers = nn.Sequential(
            nn.Linear(num_inputs, first), nn.ReLU(),
            nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, num_outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of every class."""
        logits: Tensor = self.layers(x)
        return logits


class ToyDataset(Dataset[tuple[Tensor, Tensor]]):
    """Rows of features and a label for each."""

    def __init__(self, X: Tensor, y: Tensor) -> None:  # noqa: N803 - the book's name
        self.features = X
        self.labels = y

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)
