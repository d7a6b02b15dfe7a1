"""Find a learning rate: train for a few steps with a rising one, and see where the loss stops falling."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from scratchlm.core.errors import DataError, NonFiniteLossError
from scratchlm.core.protocols import Task
from scratchlm.data.loaders import BatchLoader
from scratchlm.model.gpt import GPTModel
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.config import TrainingConfig
from scratchlm.training.trainer import Trainer

LOWEST, HIGHEST = 1e-6, 1.0
N_STEPS = 100
SMOOTHING = 0.9  # weight of the earlier losses in the average
DIVERGED = 2.0  # the test ends when the average loss is so many times the lowest
SAFETY = 10  # the suggestion is the rate of the lowest loss divided by this


@dataclass(frozen=True)
class RatePoint:
    """One step of the test."""

    learning_rate: float
    loss: float  # moving average, in nats per target


class _Diverged(Exception):  # noqa: N818  (the end of the test, not an error)
    """The loss has risen far above its lowest."""


def learning_rate_range(
    model: GPTModel, task: Task, config: TrainingConfig, train: BatchLoader, *, n_steps: int = N_STEPS
) -> list[RatePoint]:
    """Train the model with a learning rate that rises from LOWEST to HIGHEST by the same factor at each step.

    The loss falls slowly, then fast, and rises again when the rate is too high, where the test ends. The model is of
    no use afterwards.
    Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
    Raises: DataError when the loss is never finite.
    """
    collected = _Losses()
    short = dataclasses.replace(
        config,
        max_steps=n_steps,
        epochs=None,
        max_minutes=None,
        eval_every_steps=0,
        sample_every_steps=0,
        patience=None,
        max_skipped_steps=0,
    )
    trainer = Trainer(model, task, short, callbacks=[collected])
    trainer.rate_of = rising_rate
    with contextlib.suppress(_Diverged, NonFiniteLossError):  # the last rates were too high
        trainer.fit(train)
    if not collected.points:
        raise DataError("the loss is not finite even at the lowest learning rate; look at the data.")
    return collected.points


def rising_rate(config: TrainingConfig, *, step: int, n_steps: int) -> float:  # noqa: ARG001
    """The learning rate of a step of the test, numbered from 1 to n_steps.

    Example:
        >>> [f"{rising_rate(TrainingConfig(max_steps=4), step=step, n_steps=4):.0e}" for step in (1, 2, 3, 4)]
        ['1e-06', '1e-04', '1e-02', '1e+00']
    """
    return float(LOWEST * (HIGHEST / LOWEST) ** ((step - 1) / max(1, n_steps - 1)))


def suggested_rate(points: Sequence[RatePoint]) -> float:
    """A tenth of the rate at which the average loss was lowest: a peak that leaves room for the later steps."""
    return min(points, key=lambda point: point.loss).learning_rate / SAFETY


class _Losses(Callback):
    """A callback that averages the losses, and ends the test when they rise."""

    def __init__(self) -> None:
        self.points: list[RatePoint] = []
        self._average = 0.0

    def on_step(self, record: StepRecord) -> None:
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * record.train_loss
        loss = self._average / (1 - SMOOTHING**record.step)  # the first average starts at zero
        self.points.append(RatePoint(record.learning_rate, loss))
        lowest = min((point.loss for point in self.points), default=math.inf)
        if loss > DIVERGED * lowest:
            raise _Diverged
