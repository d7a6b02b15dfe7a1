"""The one training loop: pre-training, classification and instruction tuning all go through it."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from scratchlm.checkpoints.store import (
    TrainingState,
    build_model,
    checkpoint_folder,
    list_checkpoints,
    load_tensors,
    load_training_state,
    newest_good_checkpoint,
    prune_checkpoints,
    save_model,
    verify,
)
from scratchlm.core.batch import Batch
from scratchlm.core.config import to_dict
from scratchlm.core.device import memory_bytes
from scratchlm.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
)
from scratchlm.core.memory import memory_errors_explained
from scratchlm.core.protocols import Task
from scratchlm.core.seed import restore_rng_state, rng_state
from scratchlm.data.loaders import BatchLoader
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.training.callbacks import Callback, StepRecord
from scratchlm.training.config import TrainingConfig
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal, StopRequest, stop_requests
from scratchlm.training.optim import Optimizers
from scratchlm.training.partial_weights import learning_weights, restore_learning_weights
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.schedule import learning_rate

logger = logging.getLogger(__name__)

SMALLER_BATCH = "halve batch_size and double accumulate (the result is the same), or choose a smaller model"
ORIGIN = ("data_fingerprint", "base_sha256")  # facts of a checkpoint that a resumed run must share


class Trainer:
    """Take a model through steps of: batches -> loss -> gradients -> update, and never lose the way.

    The step's loss is the sum over its batches divided by the step's number of targets, so `accumulate` batches
    of 8 give the gradient of one batch of 8 * accumulate, whatever is padding in them.
    With a `run` folder it writes metrics, samples and checkpoints there; `fit(resume=True)` then continues from
    the newest good checkpoint, bit for bit on the CPU: weights, optimizer, RNG and sample order.
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
        self.earlier_s = 0.0  # training time of the starts before this one
        self._started_at_s = 0.0  # such that now - started = training time over all starts of the run
        self._saved: tuple[int, int] | None = None  # (step, evaluated_step) of the newest checkpoint

    def fit(self, train: BatchLoader, val: BatchLoader | None = None, *, resume: bool = False) -> Progress:
        """Train until steps, epochs, minutes or patience end it; returns where the run stands.

        Raises: NonFiniteLossError before a bad update; OutOfMemoryError; DataError when a step has no target;
        StoppedBySignal after saving, when SIGINT or SIGTERM asked for it.
        """
        if len(train) == 0:
            raise DataError(
                "training needs at least one full batch, found none; lower batch_size or add data."
            )
        if resume:
            self._resume(n_batches=len(train))
        elif self.run and list_checkpoints(self.run.path):
            raise CheckpointError(
                f"{self.run.path} should be new, found an earlier run's checkpoints; resume it or choose another."
            )
        self._started_at_s = time.perf_counter() - self.progress.elapsed_s
        batches = self._batches_from(train, self.progress.batches)
        self.model.train()
        with stop_requests() as stop:
            while True:
                is_over = self._is_over(len(train))
                try:
                    self._look(val, is_over=is_over, stop=stop)
                except _Interrupted:
                    is_over = True
                is_over = is_over or stop.is_made or self._is_out_of_patience()
                if is_over or self._is_due(self.config.checkpoint_every_steps):
                    self._save(n_batches=len(train))
                if is_over:
                    break
                self._step(batches, n_batches=len(train))
        if stop.signal_number is not None:
            where = f"; resume from {self.run.path}" if self.run else ""
            raise StoppedBySignal(stop.signal_number, f"stopped after step {self.progress.step}{where}.")
        return self.progress

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
                n_steps=None if self._ends_by_clock() else self._planned_steps(n_batches),
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
        if progress.best_val_loss is None or val_loss < progress.best_val_loss:
            progress.best_val_loss, progress.best_step, progress.n_worse = val_loss, progress.step, 0
        else:
            progress.n_worse += 1
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
        """How many steps the settings plan; when only the clock ends the run, as many as its pace so far allows."""
        if self._ends_by_clock():
            assert self.config.max_minutes is not None
            pace = self.progress.step / max(self.progress.elapsed_s, 1e-9)
            return max(self.progress.step + 1, round(pace * self.config.max_minutes * 60))
        by_epochs = math.inf
        if self.config.epochs is not None:
            by_epochs = math.ceil(self.config.epochs * n_batches / self.config.accumulate)
        return int(min(self.config.max_steps or math.inf, max(1, by_epochs)))

    def _ends_by_clock(self) -> bool:
        return self.config.max_steps is None and self.config.epochs is None

    def _is_over(self, n_batches: int) -> bool:
        minutes = self.config.max_minutes
        if minutes is not None and self.progress.elapsed_s >= minutes * 60:
            return True
        return not self._ends_by_clock() and self.progress.step >= self._planned_steps(n_batches)

    def _is_out_of_patience(self) -> bool:
        return self.config.patience is not None and self.progress.n_worse >= self.config.patience

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

    def _save(self, *, n_batches: int) -> None:
        """Write a checkpoint of this very moment, unless the newest one already is that."""
        moment = (self.progress.step, self.progress.evaluated_step)
        if self.run is None or self._saved == moment:
            return
        self.progress.elapsed_s = time.perf_counter() - self._started_at_s
        form = self.run.saved_form
        own = {} if form is None else learning_weights(self.optimizers.names)
        state = TrainingState(
            tensors={**self.optimizers.state(), **rng_state(), **own},
            values={
                "progress": asdict(self.progress),
                "config": to_dict(self.config),
                "n_batches": n_batches,
            },
        )
        is_evaluated = self.progress.evaluated_step == self.progress.step
        facts = {
            "step": self.progress.step,
            "val_loss": self.progress.val_loss if is_evaluated else None,
            **(self.run.facts or {}),
        }
        folder = checkpoint_folder(self.run.path, self.progress.step)
        model = self.model if form is None else form(self.model)
        save_model(folder, model, self.run.tokenizer, task=self.run.task, training_state=state, facts=facts)
        prune_checkpoints(self.run.path, keep=self.config.keep_checkpoints)
        self._saved = moment
        for callback in self.callbacks:
            callback.on_checkpoint(self.progress.step, folder)

    def _resume(self, *, n_batches: int) -> None:
        """Take up the newest good checkpoint of the run folder; without one, begin at the beginning."""
        assert self.run is not None, "fit(resume=True) needs a Trainer with a run folder"
        folder, damaged = newest_good_checkpoint(self.run.path)
        for message in damaged:
            logger.warning("skipping a damaged checkpoint: %s", message)
        if folder is None and damaged:
            raise CheckpointError(
                f"{self.run.path} should hold a good checkpoint, found only damaged ones; start over."
            )
        if folder is None:  # killed before the first checkpoint
            self._wind_back(-1)
            return
        self._check_same_origin(folder)
        state = load_training_state(folder)
        self._check_same_settings(state.values, folder, n_batches=n_batches)
        if self.run.saved_form is None:
            weights = load_tensors(folder / "model.safetensors")
            loaded = build_model(self.model.config, weights, where=folder / "model.safetensors")
            self.model.load_state_dict(loaded.state_dict())
        else:
            restore_learning_weights(self.optimizers.names, state.tensors, where=folder)
        self.optimizers.restore(state.tensors)
        self.progress = Progress(**state.values["progress"])
        self.resumed_from, self.earlier_s = self.progress.step, self.progress.elapsed_s
        self._saved = (self.progress.step, self.progress.evaluated_step)
        self._wind_back(self.progress.step)
        restore_rng_state(state.tensors)

    def _check_same_origin(self, folder: Path) -> None:
        """Data, base and tokenizer must be those of the first start, whatever paths they have now."""
        assert self.run is not None
        earlier, now = verify(folder), self.run.facts or {}
        for name in ORIGIN:
            if earlier.get(name) != now.get(name):
                raise CheckpointError(
                    f"{folder} was trained with another {name} ({earlier.get(name)}), found {now.get(name)} now; "
                    "put the earlier files back, or start over."
                )
        if load_tokenizer(folder / "tokenizer.json").fingerprint != self.run.tokenizer.fingerprint:
            raise CheckpointError(
                f"{folder} was trained with another tokenizer than the one here; start over."
            )

    def _check_same_settings(self, values: Mapping[str, Any], folder: Path, *, n_batches: int) -> None:
        """Whatever decides the weights and the sample order must be as at the first start, or the run is neither.

        A setting that an earlier version did not know counts as its default; None is not written down.
        """
        names = dict.fromkeys(field.name for field in fields(self.config))
        usual = to_dict(type(self.config)())
        earlier = {**names, **usual, **values["config"], "n_batches": values["n_batches"]}
        now = {**names, **to_dict(self.config), "n_batches": n_batches}
        for name in sorted(now.keys() - self.config.extendable):
            if earlier[name] != now[name]:
                raise CheckpointError(
                    f"{folder} was trained with {name}={earlier[name]}, found {now[name]} now; "
                    "resume with the same setting and data, or start over."
                )

    def _wind_back(self, step: int) -> None:
        """Drop metrics and samples that the checkpoint does not know of: they will be written again."""
        progress = self.progress
        self._metrics.wind_back(
            step, keep=lambda r: r["kind"] == "step" or r["step"] <= progress.evaluated_step
        )
        self._samples.wind_back(step, keep=lambda r: r["step"] <= progress.sampled_step)


class _Interrupted(Exception):  # noqa: N818  (a signal, not an error)
    """A signal arrived in the middle of an evaluation."""


def _until(stop: StopRequest, batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop.is_made:
            raise _Interrupted
        yield batch
