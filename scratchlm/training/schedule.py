"""Learning-rate schedules: linear warm-up, then cosine, linear, constant or warmup-stable-decay."""

from __future__ import annotations

import math

from scratchlm.training.config import TrainingConfig
from scratchlm.training.progress import Progress

DECAY_SHARE = 0.2  # of a warmup-stable-decay run: decay in the last fifth (Hägele et al. 2024, section 3)


def planned_steps(config: TrainingConfig, progress: Progress, *, n_batches: int) -> int:
    """The number of steps of the whole run; if time is the only limit, an estimate from the speed so far.

    The first steps are slow, so the estimate is at least the warm-up; before the first step it is ten times
    that.
    """
    if config.ends_by_clock:
        assert config.max_minutes is not None
        if progress.step == 0:
            return max(1, config.warmup_steps * 10)
        left_s = config.max_minutes * 60 - progress.elapsed_s
        n_more = max(1, round(left_s * progress.step / max(progress.steps_s, 1e-9)))
        return max(progress.step + n_more, config.warmup_steps)
    by_epochs = math.inf
    if config.epochs is not None:
        by_epochs = math.ceil(config.epochs * n_batches / config.accumulate)
    return int(min(config.max_steps or math.inf, max(1, by_epochs)))


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
