"""Appendix D: warm-up, cosine decay and gradient clipping for chapter 5's training loop."""

import math

import torch
from torch import Tensor, nn

from scratchlm.book.ch05 import run_training
from scratchlm.book.loops import Loader
from scratchlm.core.errors import ConfigError
from scratchlm.core.protocols import Tokenizer

__all__ = ["find_highest_gradient", "train_model"]

MAX_GRADIENT_NORM = 1.0


def find_highest_gradient(model: nn.Module) -> Tensor | None:
    """The largest (signed) element of all gradients; None when there is no gradient yet."""
    highest = [p.grad.max() for p in model.parameters() if p.grad is not None]
    return torch.stack(highest).max() if highest else None


def train_model(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Tokenizer,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
    orig_book_version: bool = False,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """Train as in chapter 5, with linear warm-up, cosine decay and gradient clipping to norm 1.

    The peak is the optimizer's learning rate. Gradients are clipped from the end of the warm-up on;
    `orig_book_version=True` omits the first such step, as the printed book does. `warmup_steps=0` starts at the peak,
    where the book divides by zero. The formula is the book's, not that of `training.schedule`: it warms up from
    `initial_lr` and ends one step before `min_lr`. The fourth list returned is the learning rate of every step.

    Raises: ConfigError for negative warmup_steps.
    """
    if warmup_steps < 0:
        raise ConfigError(f"warmup_steps must be at least 0, got {warmup_steps}; 0 omits the warm-up.")
    peak_lr = float(optimizer.param_groups[0]["lr"])
    n_steps = len(train_loader) * n_epochs
    learning_rates: list[float] = []

    def set_learning_rate(step: int) -> None:
        if step < warmup_steps:
            rate = initial_lr + step * ((peak_lr - initial_lr) / warmup_steps)
        else:
            progress = (step - warmup_steps) / (n_steps - warmup_steps)
            rate = min_lr + (peak_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        learning_rates.append(rate)

    def clip(step: int) -> None:
        if step > warmup_steps or (step == warmup_steps and not orig_book_version):
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=MAX_GRADIENT_NORM)

    train_losses, val_losses, tokens_seen = run_training(
        model,
        train_loader,
        val_loader,
        optimizer,
        device,
        n_epochs=n_epochs,
        eval_freq=eval_freq,
        eval_iter=eval_iter,
        start_context=start_context,
        tokenizer=tokenizer,
        step_word="Iter",
        before_step=set_learning_rate,
        before_update=clip,
    )
    return train_losses, val_losses, tokens_seen, learning_rates
