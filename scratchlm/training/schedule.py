"""Learning-rate schedules: linear warm-up, then cosine, linear, constant or warmup-stable-decay."""

import math

from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress

DECAY_SHARE = 0.2  # of a warmup-stable-decay run: decay in the last fifth (Hägele et al. 2024, section 3)

MAX_WARMUP_SHARE = 0.2  # of a run that only the clock ends, whose number of steps is not known beforehand


def planned_steps(config: TrainingConfig, progress: Progress, *, n_batches: int) -> int:
    """The number of steps of the whole run; if time is the only limit, an estimate from the speed so far.

    The first step is slow and left out of the estimate; before the second step it is ten times the warm-up.
    """
    if config.ends_by_clock:
        assert config.max_minutes is not None
        if progress.step <= 1:
            return max(1, config.warmup_steps * 10)
        left_s = config.max_minutes * 60 - progress.elapsed_s
        step_s = (progress.steps_s - progress.first_step_s) / (progress.step - 1)
        return progress.step + max(1, round(left_s / max(step_s, 1e-9)))
    by_epochs = math.inf
    if config.epochs is not None:
        by_epochs = max(1, _steps_of_batches(config, math.ceil(config.epochs * n_batches)))
    return int(min(config.max_steps or math.inf, by_epochs))


def batches_of_step(config: TrainingConfig, step: int) -> int:
    """The number of batches of a step, which rises from 1 to `accumulate` over the first steps if the settings say so.

    Early gradients of different batches agree, so that small batches bring as much per step and cost less.
    Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", section 2.

    Example:
        >>> config = TrainingConfig(max_steps=9, accumulate=4, batch_warmup_steps=8)
        >>> [batches_of_step(config, step) for step in range(1, 10)]
        [1, 1, 2, 2, 3, 3, 4, 4, 4]
    """
    if step >= config.batch_warmup_steps:
        return config.accumulate
    return math.ceil(config.accumulate * step / config.batch_warmup_steps)


def _steps_of_batches(config: TrainingConfig, n_batches: int) -> int:
    """The number of steps that take at least so many batches."""
    step, n_left = 0, n_batches
    while step < config.batch_warmup_steps and n_left > 0:
        step += 1
        n_left -= batches_of_step(config, step)
    return step + max(0, math.ceil(n_left / config.accumulate))


def limit_is_reached(config: TrainingConfig, progress: Progress, *, n_batches: int) -> bool:
    """Whether the limit of minutes, steps or epochs is reached."""
    if config.max_minutes is not None and progress.elapsed_s >= config.max_minutes * 60:
        return True
    return not config.ends_by_clock and progress.step >= planned_steps(config, progress, n_batches=n_batches)


def learning_rate(config: TrainingConfig, *, step: int, n_steps: int) -> float:
    """The learning rate of a step, numbered from 1 to n_steps.

    Warm-up is linear; then `cosine` and `linear` decay to `final_learning_rate` times the peak at the last
    step, `constant` keeps the peak, and `warmup-stable-decay` keeps it until the last fifth of the run and
    then decays linearly.
    Source: cosine from Loshchilov & Hutter 2017, equation 5, one cycle.

    Example:
        >>> config = TrainingConfig(max_steps=10, learning_rate=1.0, warmup_steps=2, final_learning_rate=0.0)
        >>> [round(learning_rate(config, step=s, n_steps=10), 2) for s in (1, 2, 6, 10)]
        [0.5, 1.0, 0.5, 0.0]
    """
    peak, warmup = config.learning_rate, min(config.warmup_steps, n_steps)
    if config.ends_by_clock:  # a few slow steps must not all be spent on the warm-up
        warmup = min(warmup, max(1, math.ceil(n_steps * MAX_WARMUP_SHARE)))
    if step < warmup:
        return peak * step / warmup
    floor = peak * config.final_learning_rate
    if config.schedule == "constant":
        return peak
    if config.schedule == "warmup-stable-decay":
        decay_steps = max(1, round(n_steps * DECAY_SHARE))
        progress = max(0.0, (step - (n_steps - decay_steps)) / decay_steps)
    else:
        progress = (step - warmup) / max(1, n_steps - warmup)
    progress = min(1.0, progress)
    if config.schedule == "cosine":
        return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    return peak + (floor - peak) * progress
