"""The one training loop: pre-training, classification and instruction tuning all go through it."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import Tensor, nn

from scratchlm.checkpoints.store import list_checkpoints
from scratchlm.core.batch import Batch
from scratchlm.core.device import memory_bytes
from scratchlm.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
)
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.protocols import Task
from scratchlm.core.run_lock import run_lock
from scratchlm.data.loaders import BatchLoader
from scratchlm.model.gpt import GPTModel
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.checkpointing import RunCheckpoints, not_finite
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal, StopRequest, stop_requests
from scratchlm.training.optim import Optimizers
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.schedule import learning_rate, planned_steps

SMALLER_BATCH = "halve batch_size and double accumulate (the result is the same), or choose a smaller model"


class Trainer:
    """Take a model through steps of: batches -> loss -> gradients -> update, and never lose the way.

    The step's loss is the sum over its batches divided by the step's number of targets, so `accumulate` batches
    of 8 give the gradient of one batch of 8 * accumulate, whatever is padding in them.
    With a `run` folder it writes metrics, samples and checkpoints there; `fit(resume=True)` then continues from
    the newest good checkpoint, bit for bit on the CPU: weights, optimizer, RNG and sample order.
    After `fit` the model has the weights of the step that the setting `use` names: `used_step`.
    """

    def __init__(
        self,
        model: GPTModel,
        task: Task,
        config: TrainingConfig,
        *,
        run: RunFolder | None = None,
        callbacks: Sequence[Callback] = (),
        sample: Callable[[nn.Module, int], tuple[str, str]] | None = None,  # (model, step) -> (prompt, text)
    ) -> None:
        if not config.has_end:
            raise ConfigError("training needs an end, found none; set max_steps, epochs or max_minutes.")
        self.model = model
        self.task = task
        self.config = config
        self.run = run
        self.callbacks = callbacks
        self.sample = sample
        self.device = next(model.parameters()).device
        self.optimizers = Optimizers(model, config)
        self.progress = Progress()
        self.resumed_from: int | None = None
        self.used_step = 0  # whose weights the model has after `fit`
        self.used_val_loss: float | None = None
        self.earlier_s = 0.0  # training time of the starts before this one
        self._started_at_s = 0.0  # such that now - started = training time over all starts of the run
        self.checkpoints: RunCheckpoints | None = None
        self._best: tuple[float, dict[str, Tensor]] | None = (
            None  # loss and weights, where no folder keeps them
        )

    def fit(self, train: BatchLoader, val: BatchLoader | None = None, *, resume: bool = False) -> Progress:
        """Train until steps, epochs, minutes or patience end it; returns where the run stands.

        Raises: NonFiniteLossError before a bad update; OutOfMemoryError; DataError when a step has no target;
        StoppedBySignal after saving, when SIGINT or SIGTERM asked for it.
        """
        if len(train) == 0:
            raise DataError(
                "training needs at least one full batch, found none; lower batch_size or add data."
            )
        with nullcontext() if self.run is None else run_lock(self.run.path):
            return self._fit(train, val, resume=resume)

    def _fit(self, train: BatchLoader, val: BatchLoader | None, *, resume: bool) -> Progress:
        self._start(n_batches=len(train), resume=resume)
        self._started_at_s = time.perf_counter() - self.progress.elapsed_s
        batches = self._batches_from(train, self.progress.batches)
        self.model.train()
        with stop_requests() as stop:
            while True:
                is_complete = self._is_over(len(train))
                try:
                    self._look(val, is_over=is_complete, stop=stop)
                except _Interrupted:
                    is_complete = False
                is_complete = is_complete or self._should_stop_early()
                is_over = is_complete or stop.is_made
                is_best = self.progress.best_step == self.progress.step
                if is_over or is_best or self._is_due(self.config.checkpoint_every_steps):
                    self._save(n_batches=len(train), is_complete=is_complete)
                if is_over:
                    break
                self._step(batches, n_batches=len(train))
        if stop.signal_number is not None:
            where = f"; resume from {self.run.path}" if self.run else ""
            raise StoppedBySignal(stop.signal_number, f"stopped after step {self.progress.step}{where}.")
        self._take_used_weights()
        return self.progress

    def _start(self, *, n_batches: int, resume: bool) -> None:
        """Begin at the beginning, with empty logs, or go on from the newest good checkpoint."""
        if self.run is None:
            assert not resume, "fit(resume=True) needs a Trainer with a run folder"
            return
        self.checkpoints = RunCheckpoints(self.run, self.config, self.model, self.optimizers)
        if not resume and list_checkpoints(self.run.path):
            raise CheckpointError(
                f"{self.run.path} must be new, found an earlier run's checkpoints; resume it or choose another."
            )
        resumed = self.checkpoints.resume(n_batches=n_batches) if resume else None
        if resumed is not None:
            self.progress = resumed
            self.resumed_from, self.earlier_s = resumed.step, resumed.elapsed_s
        progress = self.progress
        last = -1 if resumed is None else progress.step
        self._metrics.truncate_after(
            last, keep=lambda r: r.get("kind") == "step" or r["step"] <= progress.evaluated_step
        )
        self._samples.truncate_after(last, keep=lambda r: r["step"] <= progress.sampled_step)

    def _step(self, batches: Iterator[tuple[str, Batch]], *, n_batches: int) -> None:
        """One optimizer update over `accumulate` batches."""
        progress, step = self.progress, self.progress.step + 1
        step_started_at_s = time.perf_counter()
        rate = learning_rate(self.config, step=step, n_steps=self._planned_steps(n_batches))
        named = [next(batches) for _ in range(self.config.accumulate)]
        n_targets = sum(batch.n_targets for _, batch in named)
        n_tokens = sum(batch.n_tokens for _, batch in named)
        if n_targets == 0:
            raise DataError(
                f"step {step} needs a target, found none in {named[0][0]}; check masking and max_length."
            )
        with memory_errors_explained(SMALLER_BATCH):
            loss = self._backward(named, n_targets, step=step)
            grad_norm = self.optimizers.clip_gradients(self.config.max_grad_norm)
            if not math.isfinite(grad_norm):
                raise self._not_finite("gradient", grad_norm, step=step, where=named[0][0])
            self.optimizers.set_learning_rate(rate)
            self.optimizers.step()
        progress.step, progress.train_loss = step, loss
        progress.batches += len(named)
        progress.tokens += n_tokens
        now_s = time.perf_counter()
        progress.elapsed_s = now_s - self._started_at_s
        progress.steps_s += now_s - step_started_at_s
        self._tell_step(
            StepRecord(
                step=step,
                n_steps=None if self.config.ends_by_clock else self._planned_steps(n_batches),
                epoch=(progress.batches - 1) // n_batches,
                tokens=progress.tokens,
                train_loss=loss,
                learning_rate=rate,
                grad_norm=grad_norm,
                tokens_per_s=n_tokens / (now_s - step_started_at_s),
                elapsed_s=progress.elapsed_s,
                memory_bytes=memory_bytes(),
            )
        )

    def _backward(self, named: Sequence[tuple[str, Batch]], n_targets: int, *, step: int) -> float:
        """Add up the gradients of the step's mean loss; returns that loss, in nats per target."""
        loss = 0.0
        for name, batch in named:
            batch_loss = self.task.loss_sum(self.model, batch.to(self.device)) / n_targets
            batch_loss.backward()  # type: ignore[no-untyped-call]
            loss += batch_loss.item()
            if not math.isfinite(loss):
                raise self._not_finite("loss", loss, step=step, where=name)
        return loss

    def _not_finite(self, what: str, value: float, *, step: int, where: str) -> NonFiniteLossError:
        self.optimizers.zero_grad()
        kept = f"what {self.run.path} holds is untouched; " if self.run else ""
        return NonFiniteLossError(
            f"the {what} of step {step} must be finite, found {value} at {where}; training stopped there, "
            f"{kept}lower the learning rate or look at that batch."
        )

    def _look(self, val: BatchLoader | None, *, is_over: bool, stop: StopRequest) -> None:
        """Evaluate and sample, where this step is due for it.

        Raises: _Interrupted when a signal arrives during the evaluation; a resumed run evaluates again.
        """
        progress = self.progress
        evaluates = val is not None and (is_over or self._is_due(self.config.eval_every_steps, at_start=True))
        if val is not None and evaluates and progress.evaluated_step < progress.step:
            n_batches = self.config.eval_batches
            loader = _until(stop, itertools.islice(val, n_batches) if n_batches else val)
            metrics = {f"val_{name}": value for name, value in self.task.metrics(self.model, loader).items()}
            self._take_evaluation(metrics)
        samples = is_over or self._is_due(self.config.sample_every_steps, at_start=True)
        if (
            self.sample
            and self.config.sample_every_steps
            and samples
            and progress.sampled_step < progress.step
        ):
            prompt, text = self.sample(self.model, progress.step)
            progress.sampled_step = progress.step
            if self.run:
                self._samples.append({"step": progress.step, "prompt": prompt, "text": text})
            for callback in self.callbacks:
                callback.on_sample(progress.step, prompt, text)
        progress.elapsed_s = time.perf_counter() - self._started_at_s

    def _take_evaluation(self, metrics: dict[str, float]) -> None:
        progress, val_loss = self.progress, metrics["val_loss"]
        if not math.isfinite(val_loss):
            raise self._not_finite(
                "validation loss", val_loss, step=progress.step, where="the validation set"
            )
        progress.evaluated_step, progress.val_loss = progress.step, val_loss
        if progress.step > 0 and self._is_due(self.config.eval_every_steps):
            # Only scheduled evaluations count: a stop or an end that is extended later must not change the course.
            if progress.best_val_loss is None or val_loss < progress.best_val_loss:
                progress.best_val_loss, progress.best_step, progress.evals_since_best = (
                    val_loss,
                    progress.step,
                    0,
                )
            else:
                progress.evals_since_best += 1
        is_kept_here = self.run is None and self.config.use == "best" and progress.step > 0
        if is_kept_here and (self._best is None or val_loss < self._best[0]):
            self._best = val_loss, {name: p.detach().clone() for name, p in self.optimizers.names.items()}
            self.used_step, self.used_val_loss = progress.step, val_loss
        if self.run:
            self._metrics.append({"kind": "evaluation", "step": progress.step, **metrics})
        for callback in self.callbacks:
            callback.on_evaluation(progress.step, metrics)

    def _tell_step(self, record: StepRecord) -> None:
        if self.run:
            self._metrics.append({"kind": "step", **asdict(record)})
        for callback in self.callbacks:
            callback.on_step(record)

    def _batches_from(self, train: BatchLoader, n_taken: int) -> Iterator[tuple[str, Batch]]:
        """Batches without end, epoch after epoch, each with its name; the first n_taken are not even built."""
        epoch, start = divmod(n_taken, len(train))
        while True:
            for index, batch in enumerate(train.epoch(epoch, start=start), start=start):
                yield f"epoch {epoch}, batch {index}", batch
            epoch, start = epoch + 1, 0

    def _planned_steps(self, n_batches: int) -> int:
        return planned_steps(self.config, self.progress, n_batches=n_batches)

    def _is_over(self, n_batches: int) -> bool:
        minutes = self.config.max_minutes
        if minutes is not None and self.progress.elapsed_s >= minutes * 60:
            return True
        return not self.config.ends_by_clock and self.progress.step >= self._planned_steps(n_batches)

    def _should_stop_early(self) -> bool:
        return self.config.patience is not None and self.progress.evals_since_best >= self.config.patience

    def _is_due(self, every: int, *, at_start: bool = False) -> bool:
        step = self.progress.step
        return every > 0 and step % every == 0 and (step > 0 or at_start)

    @property
    def _metrics(self) -> History:
        assert self.run is not None
        return History(self.run.path / "metrics.jsonl")

    @property
    def _samples(self) -> History:
        assert self.run is not None
        return History(self.run.path / "samples.jsonl")

    def _save(self, *, n_batches: int, is_complete: bool) -> None:
        """Write a checkpoint, after a look whether every number is finite; without a run folder, only look."""
        self.progress.elapsed_s = time.perf_counter() - self._started_at_s
        trained = self.optimizers.state() if self.checkpoints is None else self.checkpoints.trained_tensors()
        if (found := not_finite({**self.model.state_dict(), **trained})) is not None:
            raise self._not_finite("state", found[1], step=self.progress.step, where=found[0])
        if self.checkpoints is None:
            return
        folder = self.checkpoints.save(self.progress, n_batches=n_batches, is_complete=is_complete)
        if folder is not None:
            for callback in self.callbacks:
                callback.on_checkpoint(self.progress.step, folder)

    @torch.no_grad()
    def _take_used_weights(self) -> None:
        """Give the model the best weights of the run when the setting `use` says so, and they are not the last."""
        progress = self.progress
        if self.config.use == "best" and self._best is not None:
            for name, parameter in self.optimizers.names.items():
                parameter.copy_(self._best[1][name])
            return
        best = self.checkpoints.load_best() if self.checkpoints and self.config.use == "best" else None
        last = progress.step, progress.val_loss if progress.evaluated_step == progress.step else None
        self.used_step, self.used_val_loss = best or last


class _Interrupted(Exception):  # noqa: N818  (a signal, not an error)
    """A signal arrived in the middle of an evaluation."""


def _until(stop: StopRequest, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop.is_made:
            raise _Interrupted
        yield batch
