"""The progress of a run, and the folder it writes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.config import from_dict
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.order import ORDER_VERSION
from scratchlm.model.gpt import GPTModel


@dataclass
class Progress:
    """The progress of a run: the state for resuming, in addition to weights, optimizer and random state."""

    step: int = 0  # steps done
    skipped_steps: int = 0  # of these, the ones without an update, because loss or gradient was not finite
    batches: int = 0  # batches taken from the training loader, over all epochs
    tokens: int = 0  # real tokens that went through the model
    elapsed_s: float = 0.0
    first_step_s: float = 0.0  # time of the first step, which is slower than the others
    steps_s: float = 0.0  # part of it spent in steps, without evaluation, sampling and checkpoints
    evaluated_step: int = -1  # the last step that was evaluated; -1 = none
    sampled_step: int = -1  # the last step that wrote a text sample; -1 = none
    train_loss: float | None = None  # of the last step with an update
    val_loss: float | None = None  # of the last evaluation
    best_val_loss: float | None = None  # of the scheduled evaluations after step 0
    best_step: int | None = None
    evals_since_best: int = 0  # scheduled ones
    precision: str | None = None  # of the matrix products; None before the first start
    order_version: int = ORDER_VERSION  # of the order of the training examples

    def count_step(self, *, loss: float | None, n_batches: int, n_tokens: int, seconds: float) -> None:
        """Record a step; without a loss it was skipped."""
        self.step += 1
        self.skipped_steps += loss is None
        self.train_loss = self.train_loss if loss is None else loss
        self.batches += n_batches
        self.tokens += n_tokens
        self.steps_s += seconds
        if self.step == 1:
            self.first_step_s = seconds

    def count_evaluation(self, val_loss: float) -> None:
        """Record a scheduled evaluation of this step: a new best, or one more since the best."""
        if self.best_val_loss is None or val_loss < self.best_val_loss:
            self.best_val_loss, self.best_step, self.evals_since_best = val_loss, self.step, 0
        else:
            self.evals_since_best += 1

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> Progress:
        """Read progress from a checkpoint, also from one of an earlier version.

        Raises: ConfigError naming a value that is of the wrong type or unknown.
        """
        renamed = {"n_worse": "evals_since_best"}  # its name in earlier versions
        saved = {renamed.get(name, name): value for name, value in values.items()}
        saved.setdefault("order_version", 1)
        return from_dict(cls, saved, where="progress")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of a run, and the data saved with its weights to make a checkpoint usable by itself."""

    path: Path
    tokenizer: Tokenizer
    task: Mapping[str, Any] | None = None  # goes into task.json
    facts: Mapping[str, Any] | None = None  # goes into the manifest, e.g. the data's fingerprint
    # Returns the model to save if it is not the one in training: with LoRA, a copy with merged weights. The
    # trainable weights are then saved in the training state, and the frozen ones must be the same at every
    # start.
    merge: Callable[[GPTModel], GPTModel] | None = None
