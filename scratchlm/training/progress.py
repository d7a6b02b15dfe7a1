"""Where a run stands, and where it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scratchlm.core.config import from_dict
from scratchlm.core.protocols import Tokenizer
from scratchlm.model.gpt import GPTModel


@dataclass
class Progress:
    """Where a run stands: all that a resumed run must know beside weights, optimizer and RNG."""

    step: int = 0  # updates done
    batches: int = 0  # batches taken from the training loader, over all epochs
    tokens: int = 0  # real tokens that went through the model
    elapsed_s: float = 0.0
    steps_s: float = 0.0  # of it, time spent in steps: without evaluation, sampling and checkpoints
    evaluated_step: int = -1  # the last step that was evaluated
    sampled_step: int = -1  # the last step that wrote a text sample
    train_loss: float | None = None  # of the last step
    val_loss: float | None = None  # of the last evaluation
    best_val_loss: float | None = None  # of the scheduled evaluations after step 0
    best_step: int | None = None
    evals_since_best: int = 0  # scheduled ones

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> Progress:
        """Progress as a checkpoint holds it, also one of an earlier version.

        Raises: ConfigError naming a value that is of the wrong type or unknown.
        """
        names = {"n_worse": "evals_since_best"}
        saved = {names.get(name) or name: value for name, value in values.items()}
        return from_dict(cls, saved, where="progress")


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a run writes, and what it writes beside the weights so that a checkpoint can be used on its own."""

    path: Path
    tokenizer: Tokenizer
    task: Mapping[str, Any] | None = None  # goes into task.json
    facts: Mapping[str, Any] | None = None  # goes into the manifest, e.g. the data's fingerprint
    # The model as others should load it, when that is not the one that learns: with LoRA, merged weights. What
    # learns is then saved in the training state, and what does not must be the same at every start.
    saved_form: Callable[[GPTModel], GPTModel] | None = None
