"""Measure how long a training step takes on this machine, from a short training of a model with one block."""

import dataclasses
import functools
import statistics

import numpy as np
import torch
from torch import nn

from scratchlm.core.device import memory_bytes
from scratchlm.core.matrix_speed import seconds_of
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.windows import TokenWindows
from scratchlm.model.attention_context import attention_context
from scratchlm.model.block import TransformerBlock
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.config import TrainingConfig
from scratchlm.training.optim import Optimizers
from scratchlm.training.precision import choose_precision, run_passes
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.trainer import Trainer

N_STEPS = 4  # the first is slower than the others, and is left out


def measure_step_s(
    config: GPTConfig, training: TrainingConfig, *, device: torch.device, within_documents: bool = False
) -> float:
    """Predict the time of a step of the whole model, without building it.

    Embeddings, head, loss and the first block are trained for a few steps; every further block adds the time of its
    own passes and update, measured alone. All of them use the run's batch size and settings.

    Units: seconds per step, without evaluation, text samples and checkpoints.
    """
    one_block = dataclasses.replace(config, n_layers=1)
    step_s = _trained_step_s(one_block, training, 1, device, within_documents)
    if training.accumulate > 1:  # what a second forward and backward pass adds
        step_s += (training.accumulate - 1) * (
            _trained_step_s(one_block, training, 2, device, within_documents) - step_s
        )
    passes_s, update_s = _block_s(config, training, device, within_documents)
    return step_s + (config.n_layers - 1) * (training.accumulate * passes_s + update_s)


def measure_program_bytes() -> int:
    """The memory of Python, torch and this package once a model has been trained, here a tiny one.

    The first step imports more parts of torch, and its libraries allocate buffers.
    """
    tiny = GPTConfig(vocab_size=16, context_length=8, emb_dim=8, n_heads=1, n_layers=1)
    _trained_step_s(tiny, TrainingConfig(max_steps=1, batch_size=2), 1, torch.device("cpu"))
    return memory_bytes()


def _trained_step_s(
    config: GPTConfig,
    training: TrainingConfig,
    accumulate: int,
    device: torch.device,
    within_documents: bool = False,
) -> float:
    """The median time of a step of a model that is trained on random tokens."""
    n_tokens = training.batch_size * accumulate * config.context_length
    ids = np.random.default_rng(0).integers(config.vocab_size, size=N_STEPS * n_tokens + 1)
    short = TrainingConfig(
        max_steps=N_STEPS,
        batch_size=training.batch_size,
        accumulate=accumulate,
        optimizer=training.optimizer,
        label_smoothing=training.label_smoothing,
        max_grad_norm=training.max_grad_norm,
        precision=training.precision,
        activation_checkpointing=training.activation_checkpointing,
        recompute_cheap=training.recompute_cheap,
        eval_every_steps=0,
        use="last",
    )
    times = _StepTimes()
    model = GPTModel(config).to(device)
    start = 0 if within_documents else None
    windows = TokenWindows(ids, context_length=config.context_length, document_start=start)
    task = PretrainingTask(label_smoothing=training.label_smoothing)
    Trainer(model, task, short, callbacks=[times]).fit(BatchLoader(windows, batch_size=training.batch_size))
    return statistics.median(n_tokens / speed for speed in times.tokens_per_s[1:])


def _block_s(
    config: GPTConfig, training: TrainingConfig, device: torch.device, within_documents: bool
) -> tuple[float, float]:
    """The time of forward and backward pass of one block, and of the update of its weights."""
    block = TransformerBlock(config).to(device).train()
    block.set_activation_checkpointing(
        training.activation_checkpointing, recompute_cheap=training.recompute_cheap
    )
    x = torch.randn(training.batch_size, config.context_length, config.emb_dim, device=device)
    x.requires_grad_()  # as the output of the block before it
    documents = torch.ones(x.shape[:2], dtype=torch.long, device=device) if within_documents else None
    context = attention_context(x, config, attention_mask=documents)
    optimizers = Optimizers(nn.ModuleDict({"trf_blocks": block}), training)
    precision = choose_precision(training.precision, device, config, training.batch_size)
    passes = functools.partial(run_passes, block, x, context, precision)

    def update() -> None:
        optimizers.clip_gradients(training.max_grad_norm)
        for part in optimizers.parts:  # keeps the gradients for the next measurement
            part.step()

    passes_s, update_s = (statistics.median(seconds_of(one, device, n=N_STEPS)) for one in (passes, update))
    return passes_s, update_s


class _StepTimes(Callback):
    """A callback that collects the speed of each step."""

    def __init__(self) -> None:
        self.tokens_per_s: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        self.tokens_per_s.append(record.tokens_per_s)
