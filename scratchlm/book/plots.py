"""The book's training plots: two curves over epochs, with tokens or examples seen on a second axis."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

Numbers = Sequence[float] | Sequence[int] | Tensor


def plot_losses(
    epochs_seen: Numbers,
    tokens_seen: Numbers,
    train_losses: Numbers,
    val_losses: Numbers,
    label: str = "loss",
) -> None:
    """Draw both losses over epochs and tokens, save `LABEL-plot.pdf` in the current folder, and show it.

    The bonus chapter on preferences gives another label, such as "reward margins".
    """
    _draw((epochs_seen, tokens_seen), (train_losses, val_losses), label, seen="Tokens seen")


def plot_values(
    epochs_seen: Numbers,
    examples_seen: Numbers,
    train_values: Numbers,
    val_values: Numbers,
    label: str = "loss",
) -> None:
    """Draw two curves over epochs and examples, save `LABEL-plot.pdf` in the current folder, and show it."""
    _draw((epochs_seen, examples_seen), (train_values, val_values), label, seen="Examples seen")


def _draw(axes: tuple[Any, Any], curves: tuple[Any, Any], label: str, *, seen: str) -> None:
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, over_epochs = pyplot.subplots(figsize=(5, 3))
    over_epochs.plot(axes[0], curves[0], label=f"Training {label}")
    over_epochs.plot(axes[0], curves[1], linestyle="-.", label=f"Validation {label}")
    over_epochs.set_xlabel("Epochs")
    over_epochs.set_ylabel(label.capitalize())
    over_epochs.legend()
    over_epochs.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_seen = over_epochs.twiny()
    over_seen.plot(axes[1], curves[0], alpha=0)  # invisible: it gives the second axis its range
    over_seen.set_xlabel(seen)
    figure.tight_layout()
    pyplot.savefig(f"{label}-plot.pdf")
    pyplot.show()
