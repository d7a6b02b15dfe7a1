"""Who is told what happens during training: progress bars, TensorBoard, tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One optimizer update, as it went."""

    step: int
    n_steps: int | None  # how many are planned; None when only the clock ends the run
    epoch: int
    tokens: int  # since the first start of the run
    train_loss: float  # nats per target, over this step's batches, before the update
    learning_rate: float
    grad_norm: float  # before clipping
    tokens_per_s: float  # of this step
    elapsed_s: float  # training time since the first start, evaluation included
    memory_bytes: int


class Callback(Protocol):
    """Anything that wants to know."""

    def on_step(self, record: StepRecord) -> None:
        """After each update."""

    def on_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """After each evaluation; the keys are prefixed with `val_`."""

    def on_sample(self, step: int, prompt: str, text: str) -> None:
        """After each text sample."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """After each checkpoint."""
