"""The settings of a training run, for every task."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from scratchlm.core.errors import ConfigError
from scratchlm.core.seed import check_seed
from scratchlm.training.muon import IterationName
from scratchlm.training.precision import PrecisionName

ShardingName = Literal["none", "fsdp"]
# What a resumed run may change, because the weights of a step do not depend on it.
EXTENDABLE = frozenset({  # limits, intervals, and what changes memory or time only
    "max_steps", "epochs", "max_minutes", "patience",
    "eval_every_steps", "eval_batches", "sample_every_steps", "checkpoint_every_steps", "keep_checkpoints", "use",
    "background_checkpoints", "activation_checkpointing", "recompute_cheap", "sharding", "max_skipped_steps",
})  # fmt: skip
# Of a run, in any unit: larger numbers are not exact as floats, and what is computed from them may be infinite.
LONGEST = 1 << 53

RULES: tuple[tuple[str, Callable[[float], bool], str, str], ...] = (  # settings, check, requirement, advice
    (
        "max_steps epochs max_minutes batch_size accumulate learning_rate muon_learning_rate eval_batches patience",
        lambda value: value > 0, "be above zero", "choose a positive number",
    ),
    (
        "max_steps epochs max_minutes warmup_steps batch_warmup_steps",
        lambda value: value <= LONGEST, f"be at most {LONGEST}", "choose less",
    ),
    (
        "warmup_steps batch_warmup_steps weight_decay max_grad_norm max_skipped_steps eval_every_steps "
        "sample_every_steps checkpoint_every_steps",
        lambda value: value >= 0, "not be negative", "use 0 to switch it off",
    ),
    (
        "final_learning_rate beta1 beta2 label_smoothing",
        lambda value: 0 <= value <= 1, "lie between 0 and 1", "choose another",
    ),
    ("beta1 beta2", lambda value: value < 1, "be below 1", "0.9 is usual"),
    ("label_smoothing", lambda value: value < 1, "be below 1", "at 1 the targets no longer count, 0.1 is usual"),
    ("keep_checkpoints", lambda value: value >= 1, "be at least 1", "a run needs one"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The settings of the training loop: limits, batch size, learning rate, evaluation and checkpoints.

    A step is one optimizer update over `batch_size * accumulate` examples. The first of max_steps, epochs and
    max_minutes to be reached ends the run.
    """

    extendable: ClassVar = EXTENDABLE

    max_steps: int | None = None  # maximum number of steps
    epochs: float | None = None  # maximum number of passes over the data
    max_minutes: float | None = None  # maximum minutes of training, including those before a resume
    batch_size: int = 16  # examples in one forward pass
    accumulate: int = 1  # forward passes per step
    # steps over which the forward passes per step rise from 1 to accumulate; 0 = accumulate from the first step on
    batch_warmup_steps: int = 0
    learning_rate: float = 1e-3  # the peak learning rate
    # how the learning rate falls after the peak
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    warmup_steps: int = 20  # steps from zero to the peak learning rate
    final_learning_rate: float = 0.1  # the learning rate at the end of the decay, as a fraction of the peak
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices in the blocks, AdamW for the rest
    muon_learning_rate: float = 0.02  # the peak for the matrices that Muon updates; follows the same schedule
    # how Muon orthogonalizes: with five polynomials of Jordan's, or with three that do as well in less time
    muon_iteration: IterationName = "newton-schulz"
    weight_decay: float = 0.1  # decay of matrices; biases and norms have none
    beta1: float = 0.9  # AdamW's decay rate for the mean of gradients
    beta2: float = 0.99  # AdamW's decay rate for the mean of squared gradients
    # maximum global gradient norm, to which larger gradients are scaled; 0 = no limit
    max_grad_norm: float = 1.0
    # steps of a run that may leave the weights unchanged because loss or gradient is NaN or infinite; 0 = stop at once
    max_skipped_steps: int = 0
    # precision of matrix products; bf16: bfloat16, with weights in float32; auto: bf16 where it is faster
    precision: PrecisionName = "float32"
    # keep only the inputs of the blocks for the backward pass, which computes the rest again: less memory, more time
    activation_checkpointing: bool = False
    # keep no outputs of norms and activation functions, which are computed again: a third less memory of that kind
    recompute_cheap: bool = False
    # with torchrun: every rank holds the whole model (DDP), or a part of all weights, gradients and moments (FSDP)
    sharding: ShardingName = "none"
    label_smoothing: float = 0.0  # share of the target probability spread over all tokens
    eval_every_steps: int = 100  # steps between evaluations; 0 = only at the end
    eval_batches: int | None = None  # batches of the validation set per evaluation; None = all
    # early stopping: maximum number of evaluations without a better validation loss
    patience: int | None = None
    sample_every_steps: int = 0  # steps between text samples; 0 = none
    # steps between checkpoints; 0 = only at the end; a new best is always saved
    checkpoint_every_steps: int = 500
    # write checkpoints from a copy, while training continues; without it training waits, and needs no copy
    background_checkpoints: bool = True
    keep_checkpoints: int = 2  # number of newest checkpoints to keep, beside the best
    # the checkpoint that is tested, and that later stages and the run folder's name refer to: the one of the lowest
    # validation loss, or the newest
    use: Literal["best", "last"] = "best"
    seed: int = 0  # seed of initial weights, sample order and dropout

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for field in dataclasses.fields(self):  # those of fine-tuning too
            value = getattr(self, field.name)
            if isinstance(value, float) and math.isinf(value):
                raise ConfigError(f"{field.name} must be finite, got {value}.")
        for names, is_valid, rule, advice in RULES:
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not is_valid(value):
                    raise ConfigError(f"{name} must {rule}, got {value}; {advice}.")

        if self.batch_warmup_steps and self.accumulate == 1:
            raise ConfigError(
                f"batch_warmup_steps has no effect with accumulate=1, got {self.batch_warmup_steps}; raise accumulate, "
                "and lower batch_size to keep the batch."
            )

    @property
    def has_end(self) -> bool:
        """Whether there is a maximum of steps, epochs or minutes."""
        return not (self.max_steps is None and self.epochs is None and self.max_minutes is None)

    @property
    def ends_by_clock(self) -> bool:
        """Whether the training time is the only limit."""
        return self.max_steps is None and self.epochs is None
