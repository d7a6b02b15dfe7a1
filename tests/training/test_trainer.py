"""The training loop: it lowers the loss, stops at each kind of end, and never makes things worse."""

import contextlib
import math
import random

import pytest
import torch

from scratchlm.checkpoints.store import newest_good_checkpoint
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import ConfigError, DataError, NonFiniteLossError, OutOfMemoryError
from scratchlm.evaluation.loss import mean_loss
from scratchlm.training import trainer as trainer_module
from scratchlm.training.config import TrainingConfig
from scratchlm.training.gradients import add_gradients
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.trainer import Trainer
from tests.conftest import StopAt
from tests.tolerances import n_roundings, rounding
from tests.training.conftest import checkpoint_steps


def test_training_lowers_the_validation_loss(tiny_run):
    trainer, train, val = tiny_run(max_steps=60, eval_every_steps=30)
    losses = []
    trainer.task.metrics = lambda model, loader, total: (
        losses.append(mean_loss(model, loader, trainer.task)) or {"loss": losses[-1]}
    )
    trainer.fit(train, val)
    assert losses[0] == pytest.approx(math.log(trainer.model.config.vocab_size), rel=0.1)  # knows nothing yet
    assert losses[-1] < 0.5 * losses[0]


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tiny_run):
    """Also when the micro-batches hold different numbers of targets, where a mean of means would be wrong."""
    large, train, _ = tiny_run(drop_rate=0.0, max_steps=1)
    one, two = next(train.epoch(0)), next(train.epoch(0, start=1))
    two.targets[:, 3:] = IGNORE_INDEX
    how = large.precision, large.batch_memory, large.ranks
    joined = Batch(inputs=torch.cat([one.inputs, two.inputs]), targets=torch.cat([one.targets, two.targets]))
    add_gradients(large.parallel, [("", joined)], joined.n_targets, *how)
    gradients = {name: p.grad.clone() for name, p in large.model.named_parameters()}
    large.optimizers.zero_grad()
    add_gradients(large.parallel, [("", one), ("", two)], one.n_targets + two.n_targets, *how)
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    n = joined.targets.numel() + 3 * n_roundings(
        large.model.config
    )  # a sum over targets; forward and backward
    for name, p in large.model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=0, atol=rounding(largest, n=n))


class PoisonedTask(PretrainingTask):
    """A task whose loss, or only its gradient, is not finite at its n-th call."""

    def __init__(self, bad_call, value=math.nan, *, only_gradient=False):
        super().__init__()
        self.calls, self.bad_call = 0, bad_call
        self.value, self.only_gradient = value, only_gradient

    def loss_sum(self, model, batch):
        self.calls += model.training
        loss = super().loss_sum(model, batch)
        if not model.training or self.calls != self.bad_call:
            return loss
        if self.only_gradient:
            loss.register_hook(lambda gradient: gradient * self.value)
            return loss
        return loss * self.value


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_batch(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path / "bad", checkpoint_every_steps=2)
    trainer = Trainer(trainer.model, PoisonedTask(bad_call=5), trainer.config, run=trainer.run)
    with pytest.raises(NonFiniteLossError, match=r"loss of step 5 .* epoch 0, batch 4"):
        trainer.fit(train, val)
    assert trainer.progress.step == 4
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    folder, damaged = newest_good_checkpoint(tmp_path / "bad")
    assert folder.name == "step-00000004"
    assert not damaged


@pytest.mark.parametrize("n_places", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_wherever_a_number_is_not_finite_the_run_resumes_as_if_it_had_not_been(tiny_run, tmp_path, n_places):
    settings = {"accumulate": 2, "max_steps": 8, "checkpoint_every_steps": 1}
    trainer, train, val = tiny_run(**settings)
    trainer.fit(train, val)
    whole = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    draw = random.Random(0)
    for place in range(n_places):
        trainer, train, val = tiny_run(tmp_path / f"{place}", **settings)
        call, value = draw.randint(1, 2 * 8), draw.choice([math.nan, math.inf, -math.inf])
        task = PoisonedTask(call, value, only_gradient=draw.random() < 0.5)
        poisoned = Trainer(trainer.model, task, trainer.config, run=trainer.run)
        with pytest.raises(NonFiniteLossError, match=f"of step {(call + 1) // 2} is not finite"):
            poisoned.fit(train, val)
        assert all(torch.isfinite(p).all() for p in poisoned.model.parameters())
        assert checkpoint_steps(tmp_path / f"{place}")[-1:] == [(call - 1) // 2][: call > 2]
        trainer, train, val = tiny_run(tmp_path / f"{place}", **settings)
        trainer.fit(train, val, resume=call > 2)
        assert all(torch.equal(p, whole[name]) for name, p in trainer.model.named_parameters())


@pytest.mark.parametrize("n_places", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_wherever_a_step_is_skipped_or_its_loss_jumps_the_run_ends_about_where_it_would_have(
    tiny_run, n_places
):
    """A finite jump, of the loss or of its gradient alone, is scaled down with the gradient's norm."""
    settings = {"max_steps": 30, "eval_every_steps": 0, "max_skipped_steps": 1}
    trainer, train, val = tiny_run(**settings)
    whole = trainer.fit(train, val)
    draw = random.Random(1)
    for _ in range(n_places):
        trainer, train, val = tiny_run(**settings)
        call, value = draw.randint(1, 30), draw.choice([math.nan, math.inf, -math.inf, 1e4, 1e8])
        trainer.task = PoisonedTask(call, value, only_gradient=draw.random() < 0.5)
        poisoned = Trainer(trainer.model, trainer.task, trainer.config).fit(train, val)
        assert poisoned.skipped_steps == (not math.isfinite(value))
        assert poisoned.val_loss == pytest.approx(whole.val_loss, rel=0.1), (call, value)


def test_a_gradient_that_is_not_finite_stops_before_the_update(tiny_run):
    trainer, train, val = tiny_run()
    parameter = trainer.model.final_norm.scale
    parameter.register_hook(lambda grad: grad * math.inf)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(NonFiniteLossError, match="gradient of step 1"):
        trainer.fit(train, val)
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


@pytest.mark.parametrize("use_run", [True, False])
def test_weights_that_are_not_finite_are_never_saved(tiny_run, tmp_path, use_run):
    run = tmp_path if use_run else None
    trainer, train, _ = tiny_run(
        run, checkpoint_every_steps=2, max_steps=5, eval_every_steps=0, max_grad_norm=0
    )

    class Breaking(StopAt):
        def on_step(self, record):
            if record.step == 5:
                trainer.model.final_norm.scale.data[0] = float("nan")

    trainer.callbacks = [Breaking(0)]
    with pytest.raises(NonFiniteLossError, match=r"state of step 5 is not finite: nan at .*final_norm.scale"):
        trainer.fit(train)
    assert checkpoint_steps(tmp_path) == ([2, 4] if use_run else [])


def test_moments_that_are_not_finite_are_never_saved(tiny_run, tmp_path):
    trainer, train, _ = tiny_run(tmp_path, checkpoint_every_steps=2, max_steps=5)

    class Breaking(StopAt):
        def on_step(self, record):
            if record.step == 4:
                weight = trainer.model.final_norm.scale
                trainer.optimizers.parts[0].state[weight]["exp_avg_sq"][0] = float("inf")

    trainer.callbacks = [Breaking(0)]
    with pytest.raises(NonFiniteLossError, match=r"inf at optimizer\.final_norm\.scale\.exp_avg_sq"):
        trainer.fit(train)
    assert checkpoint_steps(tmp_path) == [2]


def test_a_learning_rate_beyond_float32_is_our_error_and_saves_nothing(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=3, learning_rate=1e39, warmup_steps=0, schedule="constant",
                                   checkpoint_every_steps=1)  # fmt: skip
    with pytest.raises(NonFiniteLossError) as error:
        trainer.fit(train, val)
    assert error.value.exit_code == 6
    assert "learning rate" in str(error.value)
    assert checkpoint_steps(tmp_path) == []


def test_a_step_without_a_target_is_an_error(tiny_run):
    trainer, train, val = tiny_run()
    rows = train.examples.batch

    def masked(indices):
        batch = rows(indices)
        return Batch(inputs=batch.inputs, targets=torch.full_like(batch.targets, IGNORE_INDEX))

    train.examples.batch = masked
    with pytest.raises(DataError, match="step 1 has no target"):
        trainer.fit(train, val)


def test_patience_ends_a_run_that_gets_no_better(tiny_run, tmp_path):
    trainer, train, val = tiny_run(
        tmp_path, max_steps=500, eval_every_steps=1, patience=3, learning_rate=1e-9, keep_checkpoints=1
    )
    values, told = iter([5.0, 4.0, 4.5, 4.5, 4.5, 1.0]), []
    trainer.notify = told.append
    trainer.task.metrics = lambda model, loader, total: {"loss": next(values)}
    assert trainer.fit(train, val).step == 4
    assert trainer.progress.best_step == 1
    assert told == [
        "stopped early after step 4: no validation loss was below that of step 1 in 3 evaluations (patience 3)"
    ]


def test_the_clock_alone_can_end_a_run(tiny_run):
    trainer, train, val = tiny_run(max_steps=None, max_minutes=0.01)
    progress = trainer.fit(train, val)
    assert progress.step > 0
    assert progress.elapsed_s == pytest.approx(0.6, abs=0.5)


def test_epochs_end_a_run_after_all_their_batches(tiny_run):
    trainer, train, val = tiny_run(max_steps=None, epochs=2.0)
    assert trainer.fit(train, val).step == 2 * len(train)


class SignalAtRead:
    """A stop request that is made when it is read for the k-th time."""

    def __init__(self, k):
        self.k, self.n_reads = k, 0

    @property
    def is_made(self):
        self.n_reads += 1
        return self.n_reads >= self.k

    @property
    def signal_number(self):
        return 2 if self.n_reads >= self.k else None


@pytest.mark.parametrize("k", range(1, 12))
def test_whenever_a_signal_arrives_the_step_it_stops_after_is_saved(tiny_run, tmp_path, monkeypatch, k):
    monkeypatch.setattr(trainer_module, "stop_requests", lambda: contextlib.nullcontext(SignalAtRead(k)))
    trainer, train, _ = tiny_run(tmp_path, checkpoint_every_steps=0, eval_every_steps=0)
    with pytest.raises(StoppedBySignal, match=f"stopped after step {k - 1}"):
        trainer.fit(train)
    assert checkpoint_steps(tmp_path) == [trainer.progress.step]


def test_training_without_an_end_is_refused(tiny_run):
    trainer, _, _ = tiny_run()
    with pytest.raises(ConfigError, match="needs an end"):
        Trainer(trainer.model, PretrainingTask(), TrainingConfig())


def test_memory_errors_say_what_to_do(tiny_run):
    trainer, train, _ = tiny_run()

    def fail(model, batch):
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )

    trainer.task.loss_sum = fail
    with pytest.raises(OutOfMemoryError, match="halve batch_size"):
        trainer.fit(train)
