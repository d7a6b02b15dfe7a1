"""The interface of callbacks, which are notified during training: logs, progress bars, TensorBoard, tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """The metrics of one optimizer update."""

    step: int
    n_steps: int | None  # planned for the run; None when the time is the only limit
    epoch: int
    tokens: int  # since the first start of the run
    train_loss: float  # nats per target, over this step's batches, before the update
    learning_rate: float
    grad_norm: float  # before clipping
    tokens_per_s: float  # speed of this step
    elapsed_s: float  # training time since the first start, evaluation included
    memory_bytes: int


class Callback:
    """The base class of callbacks: its methods are called during training, and do nothing until overridden."""

    def on_step(self, record: StepRecord) -> None:
        """Called after each update."""

    def on_skipped_step(self, step: int, reason: str) -> None:
        """Called instead of `on_step` after a step that left the weights unchanged."""

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Called after each evaluation; the keys are prefixed with `val_`."""

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Called after each text sample."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Called after each checkpoint."""


class Callbacks(Callback):
    """Several callbacks as one, called in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._all = tuple(callbacks)

    def on_step(self, record: StepRecord) -> None:
        """Call all of them."""
        for callback in self._all:
            callback.on_step(record)

    def on_skipped_step(self, step: int, reason: str) -> None:
        """Call all of them."""
        for callback in self._all:
            callback.on_skipped_step(step, reason)

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Call all of them."""
        for callback in self._all:
            callback.on_evaluation(step, metrics)

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """Call all of them."""
        for callback in self._all:
            callback.on_sample(step, prompt, text)

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """Call all of them."""
        for callback in self._all:
            callback.on_checkpoint(step, folder)
