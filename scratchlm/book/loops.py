"""Losses over a loader and printed lines, for the training loops of chapters 5 to 7."""

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


def loader_functions(
    calc_loss_batch: Callable[..., Tensor],
) -> tuple[Callable[..., float], Callable[..., tuple[float, float]]]:
    """A chapter's `calc_loss_loader` and `evaluate_model`, which differ in the loss of a batch only."""

    def calc_loss_loader(
        data_loader: Loader, model: nn.Module, device: Any, num_batches: int | None = None
    ) -> float:
        """The mean of the batches' mean losses, over the first `num_batches` or all.

        A smaller last batch weighs as much as a full one, as in the book; `scratchlm.evaluation.loss.mean_loss` is the
        true mean. The model's mode is not changed.

        Units: nats; nan for an empty loader.
        """
        n_batches = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
        if n_batches <= 0:
            return float("nan")
        batches = itertools.islice(data_loader, n_batches)
        return sum(calc_loss_batch(*batch, model, device).item() for batch in batches) / n_batches

    def evaluate_model(
        model: nn.Module, train_loader: Loader, val_loader: Loader, device: Any, eval_iter: int
    ) -> tuple[float, float]:
        """Training and validation loss over `eval_iter` batches each; the model is in training mode afterwards.

        A shuffling loader draws from torch's global generator, so evaluating more or less often changes the training
        that follows.
        """
        with evaluation_mode(model):
            train_loss = calc_loss_loader(train_loader, model, device, eval_iter)
            val_loss = calc_loss_loader(val_loader, model, device, eval_iter)
        model.train()
        return train_loss, val_loss

    return calc_loss_loader, evaluate_model
