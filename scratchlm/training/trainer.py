"""The training loop, used for pre-training and for every kind of fine-tuning."""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from torch import nn

from scratchlm.core.batch import Batch
from scratchlm.core.device import memory_bytes
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.memory import freed_memory_kept, memory_errors_explained
from scratchlm.core.protocols import Task
from scratchlm.core.run_lock import run_lock
from scratchlm.data.loaders import BatchLoader
from scratchlm.model.gpt import GPTModel
from scratchlm.training.batch_memory import BatchMemory
from scratchlm.training.batches import InterruptedEvaluation, endless_batches, until_stopped
from scratchlm.training.callbacks import Callback, Callbacks, StepRecord
from scratchlm.training.checkpointing import BestInMemory, RunCheckpoints
from scratchlm.training.config import TrainingConfig
from scratchlm.training.distributed import SharedStop, current_ranks
from scratchlm.training.early_stopping import should_stop_early
from scratchlm.training.finite import check_finite, check_finite_state, training_stops
from scratchlm.training.gradients import add_gradients, count_targets, find_problem
from scratchlm.training.history import RunLog
from scratchlm.training.interrupts import StoppedBySignal, stop_requests
from scratchlm.training.optim import Optimizers
from scratchlm.training.precision import Precision, choose_precision
from scratchlm.training.progress import Progress, RunFolder
from scratchlm.training.schedule import batches_of_step, learning_rate, limit_is_reached, planned_steps
from scratchlm.training.sharding import parallel_model

logger = logging.getLogger(__name__)

SKIP_MORE = "look at that batch, or let the run skip more such steps (max_skipped_steps)"
SMALLER_BATCH = "halve batch_size and double accumulate (the result is the same), or choose a smaller model"


class Trainer:
    """Train a model: take batches, compute the loss and its gradients, update the weights, repeat.

    The loss of a step is the sum over its batches divided by the step's number of targets, so `accumulate` batches
    of 8 give the gradient of one batch of 8 * accumulate, however much of them is padding.
    With a `run` folder it writes metrics, samples and checkpoints there; `fit(resume=True)` then continues from
    the newest intact checkpoint, bit for bit on the CPU: weights, optimizer, random state and sample order.
    After `fit` the model has the weights of `used_step`, the best or the last. Sharded, it is empty until then.
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
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:
        if not config.has_end:
            raise ConfigError("training needs an end; set max_steps, epochs or max_minutes.")
        self.model = model
        self.task = task
        self.config = config
        self.run = run
        self.callbacks = callbacks
        self.sample, self.notify = sample, notify
        self.ranks = current_ranks()
        self.device = next(model.parameters()).device
        self.batch_memory = BatchMemory(model, config, notify=notify)
        self.parallel = parallel_model(model, task, self.ranks, config.sharding)
        self.optimizers = Optimizers(self.parallel.model, config)
        self.precision = Precision("bf16" if config.precision == "bf16" else "float32", self.device.type)
        self.rate_of = learning_rate  # the schedule; a range test has its own
        self.progress = Progress()
        self.resumed_from: int | None = None  # the step of the checkpoint
        self.earlier_s = 0.0  # training time before this start of the run
        self.used_step = 0  # whose weights the model has after `fit`
        self.used_val_loss: float | None = None
        self._started_at_s = 0.0  # such that now - started = training time over all starts of the run
        self._n_batches = 0  # in one epoch
        self._folder = None if run is None else run.path
        self._checkpoints: RunCheckpoints | BestInMemory = BestInMemory(config, self.optimizers)

    def fit(self, train: BatchLoader, val: BatchLoader | None = None, *, resume: bool = False) -> Progress:
        """Train until the limit of steps, epochs, minutes or patience is reached; return the final progress.

        Raises: NonFiniteLossError before a bad update, unless it may be skipped; OutOfMemoryError; DataError when a
        step has no target; StoppedBySignal after saving, on SIGINT or SIGTERM.
        """
        if len(train) == 0:
            raise DataError("there is no full batch to train on; lower batch_size or add data.")
        with run_lock(self._folder) if self._folder is not None and self.ranks.is_main else nullcontext():
            try:
                return self._fit(self.ranks.share(train), val and self.ranks.share(val), resume=resume)
            finally:
                self.optimizers.zero_grad()
                self._checkpoints.close()

    def _fit(self, train: BatchLoader, val: BatchLoader | None, *, resume: bool) -> Progress:
        self._n_batches = len(train)
        self._start(resume=resume)
        progress, config = self.progress, self.config
        train.order_version = progress.order_version
        batches = endless_batches(train, start=progress.batches)
        self.parallel.model.train()
        is_kept = self.parallel.is_whole and not config.activation_checkpointing
        with freed_memory_kept(is_wanted=is_kept), stop_requests() as request:
            stop = SharedStop(request, self.ranks)
            while True:
                is_finished = limit_is_reached(config, progress, n_batches=self._n_batches)
                if val is not None and (is_finished or self._is_due(config.eval_every_steps, at_start=True)):
                    is_finished = self._evaluate(val, stop) and is_finished
                if is_finished or self._is_due(config.sample_every_steps, at_start=True):
                    self._write_sample(stop)
                is_finished = is_finished or should_stop_early(progress, config, self.notify)
                is_last = is_finished or stop.is_made  # read once: a later signal waits for the next step
                is_best = progress.best_step == progress.step
                if is_last or is_best or self._is_due(config.checkpoint_every_steps):
                    self._save(is_finished=is_finished, is_last=is_last)
                self._report_saved(wait=is_last)
                if is_last:
                    break
                self._step([next(batches) for _ in range(batches_of_step(config, progress.step + 1))])
        self.ranks.wait()  # for rank 0, which was saving
        if stop.is_made and stop.signal_number is not None:
            where = f"; resume from {self._folder}" if self._folder else ""
            raise StoppedBySignal(stop.signal_number, f"stopped after step {progress.step}{where}.")
        best = self._checkpoints.load_best() if config.use == "best" else None
        self.parallel.finish()
        last = progress.step, progress.val_loss if progress.evaluated_step == progress.step else None
        self.used_step, self.used_val_loss = best or last
        return progress

    def _start(self, *, resume: bool) -> None:
        """Begin at step 0 with empty logs, or continue from the newest intact checkpoint."""
        self._listeners = Callbacks(self.callbacks if self.ranks.is_main else [])
        if self.run is None:
            assert not resume, "fit(resume=True) needs a Trainer with a run folder"
        else:
            parts = (self.run, self.config, self.parallel, self.optimizers)
            self._checkpoints = saving = RunCheckpoints(*parts, n_batches=self._n_batches, ranks=self.ranks)
            resumed = saving.start(resume=resume)
            if resumed is not None:
                self.progress = resumed
                self.resumed_from, self.earlier_s = resumed.step, resumed.elapsed_s
            if self.ranks.is_main:
                self._listeners = Callbacks([RunLog.begin(self.run.path, resumed), *self.callbacks])
        wanted, batch_size, earlier = self.config.precision, self.config.batch_size, self.progress.precision
        chosen = choose_precision(wanted, self.device, self.model.config, batch_size, earlier=earlier)
        self.precision = chosen.shared(self.ranks.of_main)
        self.progress.precision = self.precision.name
        self.precision.announce(self.notify)
        self._started_at_s = time.perf_counter() - self.progress.elapsed_s

    def _step(self, batches: Sequence[tuple[str, Batch]]) -> None:
        """Update the weights once with the gradient of these batches, or skip the update if that is not finite."""
        progress, step = self.progress, self.progress.step + 1
        started_at_s = time.perf_counter()
        n_steps = planned_steps(self.config, progress, n_batches=self._n_batches)
        rate = self.rate_of(self.config, step=step, n_steps=n_steps)
        n_targets, n_tokens = count_targets(batches, self.ranks, step=step)
        self.ranks.seed_step(self.config.seed, step)
        with memory_errors_explained(SMALLER_BATCH):
            losses = add_gradients(
                self.parallel, batches, n_targets, self.precision, self.batch_memory, self.ranks
            )
            grad_norm = self.optimizers.clip_gradients(self.config.max_grad_norm)
            problem = find_problem(batches, losses, grad_norm, step=step)
            if problem and progress.skipped_steps >= self.config.max_skipped_steps:
                raise training_stops(problem, run=self._folder, advice=SKIP_MORE)
            self.optimizers.set_learning_rate(rate)
            self.optimizers.zero_grad() if problem else self.optimizers.step()
        seconds = self.ranks.of_main(time.perf_counter() - started_at_s)
        loss = None if problem else sum(losses)
        progress.count_step(loss=loss, n_batches=len(batches), n_tokens=n_tokens, seconds=seconds)
        self._update_clock()
        if loss is None:
            if self.ranks.is_main:
                logger.warning("%s; the step is skipped", problem)
            self._listeners.on_skipped_step(step, problem)
            return
        record = StepRecord(
            step=step,
            n_steps=None if self.config.ends_by_clock else n_steps,
            epoch=(progress.batches - 1) // self._n_batches,
            tokens=progress.tokens,
            train_loss=loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            tokens_per_s=n_tokens / seconds,
            elapsed_s=progress.elapsed_s,
            memory_bytes=memory_bytes(),
        )
        self._listeners.on_step(record)

    def _evaluate(self, val: BatchLoader, stop: SharedStop) -> bool:
        """Measure the validation loss of this step, unless that is done; False when a signal interrupts it."""
        progress = self.progress
        if progress.evaluated_step == progress.step:
            return True
        n_batches = self.config.eval_batches
        batches = itertools.islice(val, n_batches) if n_batches else val
        try:
            with self.precision.context():
                found = self.parallel.metrics(until_stopped(stop, batches))
        except InterruptedEvaluation:  # a resumed run evaluates again
            return False
        val_loss = found["loss"]
        check_finite("validation loss", val_loss, progress.step, "the validation set", run=self._folder)
        progress.evaluated_step, progress.val_loss = progress.step, val_loss
        if progress.step > 0 and self._is_due(self.config.eval_every_steps):
            # only scheduled ones count, so that stopping or extending a run does not change its result
            progress.count_evaluation(val_loss)
        self._listeners.on_evaluation(progress.step, {f"val_{name}": found[name] for name in found})
        self._update_clock()
        return True

    def _write_sample(self, stop: SharedStop) -> None:
        """Generate a text sample, unless this step already has one or the process is about to stop."""
        step, is_wanted = self.progress.step, self.config.sample_every_steps > 0 and not stop.is_made
        if self.sample is not None and is_wanted and self.progress.sampled_step < step:
            self.progress.sampled_step = step
            model = self.parallel.whole()
            if self.ranks.is_main:
                with self.precision.context():
                    self._listeners.on_sample(step, *self.sample(model, step))

    def _save(self, *, is_finished: bool, is_last: bool) -> None:
        """Write a checkpoint, after a check that every number in it is finite."""
        self._update_clock()
        state = {**self.parallel.model.state_dict(), **self.optimizers.state()}
        check_finite_state(state, step=self.progress.step, run=self._folder)
        self._report_saved(wait=True)  # the one before; at most one is being written
        self._checkpoints.save(self.progress, is_finished=is_finished, is_last=is_last)

    def _report_saved(self, *, wait: bool) -> None:
        """Tell the callbacks of a checkpoint that has been written; an error of the writer is raised here."""
        saved = self._checkpoints.saved(wait=wait)
        if saved is not None:
            self._listeners.on_checkpoint(*saved)

    def _is_due(self, every: int, *, at_start: bool = False) -> bool:
        return every > 0 and self.progress.step % every == 0 and (self.progress.step > 0 or at_start)

    def _update_clock(self) -> None:
        self.progress.elapsed_s = self.ranks.of_main(time.perf_counter() - self._started_at_s)
