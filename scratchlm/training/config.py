"""The settings of one training run, whatever the task."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import check_seed

EXTENDABLE = frozenset({  # settings that a resumed run may change: how long, and how often to look and save
    "max_steps", "epochs", "max_minutes", "patience",
    "eval_every_steps", "eval_batches", "sample_every_steps", "checkpoint_every_steps", "keep_checkpoints", "use",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how fast and how carefully to train.

    A step is one optimizer update over `batch_size * accumulate` examples. The first of max_steps, epochs and
    max_minutes to be reached ends the run.
    """

    max_steps: int | None = None  # stop after so many steps
    epochs: float | None = None  # stop after so many passes over the data
    max_minutes: float | None = None  # stop after so much wall-clock time, resumed time included
    batch_size: int = 16  # examples in one forward pass
    accumulate: int = 1  # forward passes per step
    learning_rate: float = 1e-3  # the peak
    # how the learning rate goes down after the peak
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    warmup_steps: int = 20  # steps from zero to the peak
    final_learning_rate: float = 0.1  # where the decay ends, as a fraction of the peak
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the blocks' matrices, AdamW for the rest
    muon_learning_rate: float = 0.02  # the peak for the matrices that Muon updates; follows the same schedule
    weight_decay: float = 0.1  # on matrices only, never on biases and norms
    beta1: float = 0.9  # memory of AdamW's mean of gradients
    beta2: float = 0.99  # memory of AdamW's mean of squared gradients
    max_grad_norm: float = 1.0  # longer gradients are scaled down to this; 0 = never
    label_smoothing: float = 0.0  # share of the target spread over all tokens
    eval_every_steps: int = 100  # 0 = only at the end
    eval_batches: int | None = None  # batches of the validation set per evaluation; None = all
    patience: int | None = None  # stop after so many evaluations without a better validation loss
    sample_every_steps: int = 0  # 0 = never
    checkpoint_every_steps: int = 500  # 0 = only at the end; a new best validation loss is always saved
    keep_checkpoints: int = 2  # how many of the newest stay, beside the best
    # the checkpoint that is tested, and that the run folder's name and later stages mean: the lowest validation loss,
    # or the newest
    use: Literal["best", "last"] = "best"
    seed: int = 0  # of initial weights, sample order and dropout

    def __post_init__(self) -> None:
        for field in dataclasses.fields(TrainingConfig):
            value = getattr(self, field.name)
            if isinstance(value, float) and math.isinf(value):
                raise ConfigError(f"{field.name} must be a finite number, got {value}; choose one.")
        check_seed(self.seed)
        for name in (
            "max_steps",
            "epochs",
            "max_minutes",
            "batch_size",
            "accumulate",
            "learning_rate",
            "muon_learning_rate",
            "eval_batches",
            "patience",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above zero, got {value}; choose a positive number.")
        for name in (
            "warmup_steps", "weight_decay", "max_grad_norm", "eval_every_steps", "sample_every_steps",
            "checkpoint_every_steps",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ConfigError(
                    f"{name} must not be negative, got {getattr(self, name)}; use 0 to switch it off."
                )
        for name in ("final_learning_rate", "beta1", "beta2", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        for name in ("beta1", "beta2"):
            if getattr(self, name) == 1:
                raise ConfigError(f"{name} must be below 1, got 1: such a mean never changes; 0.9 is usual.")
        if self.keep_checkpoints < 1:
            raise ConfigError(
                f"keep_checkpoints must be at least 1, got {self.keep_checkpoints}; a run needs one."
            )

    @property
    def has_end(self) -> bool:
        """Do the settings say when to stop?"""
        return not (self.max_steps is None and self.epochs is None and self.max_minutes is None)

    @property
    def ends_by_clock(self) -> bool:
        """Does only the clock end the run?"""
        return self.max_steps is None and self.epochs is None

    @property
    def extendable(self) -> frozenset[str]:
        """The settings that a resumed run may change, because the weights on the way do not depend on them."""
        return EXTENDABLE

    def check_writes_no_samples(self) -> None:
        """Refuse text samples where none would be written: fine-tuning answers or judges its test entries instead.

        Raises: ConfigError.
        """
        if self.sample_every_steps:
            raise ConfigError(
                f"sample_every_steps is of pre-training, got {self.sample_every_steps} for fine-tuning, which writes "
                "no samples; leave it out."
            )
