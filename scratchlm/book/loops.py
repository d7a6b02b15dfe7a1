"""Means over batches and printed lines, for the training loops of chapters 5 to 7."""

import itertools
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from scratchlm.core.printable import printable
from scratchlm.model.modes import evaluation_mode

Loader = DataLoader[tuple[Tensor, Tensor]]


def say(line: str) -> None:
    """Print a line, as the book's functions do."""
    sys.stdout.write(printable(line) + "\n")


def losses_of_both(
    loader_loss: Callable[..., float],
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    device: Any,
    eval_iter: int,
) -> tuple[float, float]:
    """Training and validation loss over `eval_iter` batches each; the model is in training mode afterwards."""
    with evaluation_mode(model):
        train_loss = loader_loss(train_loader, model, device, num_batches=eval_iter)
        val_loss = loader_loss(val_loader, model, device, num_batches=eval_iter)
    model.train()
    return train_loss, val_loss


def mean_over_batches(
    batch_loss: Callable[..., Tensor], loader: Loader, model: nn.Module, device: Any, num_batches: int | None
) -> float:
    """The mean of the first batches' mean losses; nan without a batch.

    A smaller last batch weighs as much as a full one, as in the book; `scratchlm.evaluation.loss.mean_loss` is the true
    mean.
    """
    n_batches = len(loader) if num_batches is None else min(num_batches, len(loader))
    if n_batches <= 0:
        return float("nan")
    batches = itertools.islice(loader, n_batches)
    return sum(batch_loss(*batch, model, device).item() for batch in batches) / n_batches
