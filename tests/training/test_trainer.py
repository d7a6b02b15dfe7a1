"""The training loop: it learns, it resumes bit for bit, it stops when asked, and it never makes things worse."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace

import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints, load_model, newest_good_checkpoint
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteLossError,
    OutOfMemoryError,
)
from scratchlm.evaluation.loss import mean_loss
from scratchlm.training import checkpointing
from scratchlm.training.config import TrainingConfig
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask
from scratchlm.training.trainer import Trainer
from tests.tolerances import n_roundings, rounding


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_clocks(records):
    clocks = {"tokens_per_s", "elapsed_s", "memory_bytes"}
    return [{key: value for key, value in record.items() if key not in clocks} for record in records]


class StopAt:
    """A callback that sends this process a signal after a step."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_step(self, record):
        if record.step == self.step:
            os.kill(os.getpid(), self.number)

    def on_evaluation(self, step, metrics): ...

    def on_sample(self, step, prompt, text): ...

    def on_checkpoint(self, step, folder): ...


def test_training_lowers_the_validation_loss(tiny_run):
    trainer, train, val = tiny_run(max_steps=60, eval_every_steps=30)
    losses = []
    trainer.task.metrics = lambda model, loader: (
        losses.append(mean_loss(model, loader, trainer.task)) or {"loss": losses[-1]}
    )
    trainer.fit(train, val)
    assert losses[0] == pytest.approx(math.log(trainer.model.config.vocab_size), rel=0.1)  # knows nothing yet
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("stop_at", [1, 5, 7, 11])
def test_a_stopped_and_resumed_run_equals_the_undisturbed_one_bit_for_bit(tiny_run, tmp_path, stop_at):
    settings = {"checkpoint_every_steps": 3, "eval_every_steps": 4, "max_steps": 12, "accumulate": 2}
    undisturbed, train, val = tiny_run(tmp_path / "a", **settings)
    undisturbed.fit(train, val)

    stopped, train, val = tiny_run(tmp_path / "b", **settings)
    stopped.callbacks = [StopAt(stop_at)]
    with pytest.raises(StoppedBySignal) as stop:
        stopped.fit(train, val)
    assert stop.value.exit_code == 130
    torch.rand(100)  # whatever else happens in between must not matter
    resumed, train, val = tiny_run(tmp_path / "b", **settings)
    resumed.fit(train, val, resume=True)

    assert resumed.resumed_from == stop_at
    assert_same_weights(weights(undisturbed), weights(resumed))
    same = [without_clocks(lines(tmp_path / run / "metrics.jsonl")) for run in ("a", "b")]
    assert same[0] == same[1]


def test_resuming_in_the_middle_of_a_later_epoch_goes_on_with_the_next_batch(tiny_run, tmp_path):
    _, train, _ = tiny_run()
    n_steps, stop_at = 2 * len(train) + 5, len(train) + 3
    undisturbed, train, val = tiny_run(tmp_path / "a", max_steps=n_steps)
    undisturbed.fit(train, val)
    stopped, train, val = tiny_run(tmp_path / "b", max_steps=n_steps)
    stopped.callbacks = [StopAt(stop_at)]
    with pytest.raises(StoppedBySignal):
        stopped.fit(train, val)
    resumed, train, val = tiny_run(tmp_path / "b", max_steps=n_steps)
    resumed.fit(train, val, resume=True)
    assert_same_weights(weights(undisturbed), weights(resumed))


def test_muon_resumes_bit_for_bit_too(tiny_run, tmp_path):
    undisturbed, train, val = tiny_run(tmp_path / "a", optimizer="muon")
    undisturbed.fit(train, val)
    stopped, train, val = tiny_run(tmp_path / "b", optimizer="muon")
    stopped.callbacks = [StopAt(5)]
    with pytest.raises(StoppedBySignal):
        stopped.fit(train, val)
    resumed, train, val = tiny_run(tmp_path / "b", optimizer="muon")
    resumed.fit(train, val, resume=True)
    assert_same_weights(weights(undisturbed), weights(resumed))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tiny_run, tmp_path, caplog):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=4)
    trainer.fit(train, val)
    expected = weights(trainer)
    newest = list_checkpoints(tmp_path)[-1]
    damaged = newest / "model.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)

    again, train, val = tiny_run(tmp_path, checkpoint_every_steps=4)
    again.fit(train, val, resume=True)
    assert again.resumed_from == 8
    assert str(damaged) in caplog.text
    assert_same_weights(expected, weights(again))


def test_only_damaged_checkpoints_are_an_error_and_nothing_is_lost(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=6)
    trainer.fit(train, val)
    for folder in list_checkpoints(tmp_path):
        (folder / "model.safetensors").write_bytes(b"")
    again, train, val = tiny_run(tmp_path)
    with pytest.raises(CheckpointError, match="only damaged ones"):
        again.fit(train, val, resume=True)
    assert len(list_checkpoints(tmp_path)) == 2


def test_resuming_with_another_sample_order_is_refused(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.fit(train, val)
    other, train, val = tiny_run(tmp_path, max_steps=8, batch_size=2)
    with pytest.raises(CheckpointError, match="batch_size=4, found 2"):
        other.fit(train, val, resume=True)


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.5), ("weight_decay", 0.0), ("schedule", "linear"), ("beta2", 0.9)]
)
def test_resuming_with_a_setting_that_decides_the_weights_is_refused(tiny_run, tmp_path, name, value):
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.fit(train, val)
    other, train, val = tiny_run(tmp_path, max_steps=8, **{name: value})
    with pytest.raises(CheckpointError, match=f"was trained with {name}=.*, found {value} now"):
        other.fit(train, val, resume=True)


def test_a_run_goes_on_with_another_end_and_other_looks_and_with_settings_that_were_not_known_then(
    tiny_run, tmp_path, monkeypatch
):
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.fit(train, val)
    real = checkpointing.load_training_state

    def of_an_earlier_version(folder):
        state = real(folder)
        del state.values["config"]["muon_learning_rate"]
        return state

    monkeypatch.setattr(checkpointing, "load_training_state", of_an_earlier_version)
    longer, train, val = tiny_run(tmp_path, max_steps=6, eval_every_steps=1, keep_checkpoints=5)
    assert longer.fit(train, val, resume=True).step == 6
    assert longer.resumed_from == 4


def test_resuming_a_finished_run_changes_nothing(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path)
    trainer.fit(train, val)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again, train, val = tiny_run(tmp_path)
    assert again.fit(train, val, resume=True).step == 12
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == before


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tiny_run):
    """Also when the micro-batches hold different numbers of targets, where a mean of means would be wrong."""
    large, train, _ = tiny_run(drop_rate=0.0, max_steps=1)
    one, two = next(train.epoch(0)), next(train.epoch(0, start=1))
    two.targets[:, 3:] = IGNORE_INDEX
    joined = Batch(inputs=torch.cat([one.inputs, two.inputs]), targets=torch.cat([one.targets, two.targets]))
    large._backward([("", joined)], joined.n_targets, step=1)
    gradients = {name: p.grad.clone() for name, p in large.model.named_parameters()}
    large.optimizers.zero_grad()
    large._backward([("", one), ("", two)], one.n_targets + two.n_targets, step=1)
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    n = joined.targets.numel() + 3 * n_roundings(
        large.model.config
    )  # a sum over targets; forward and backward
    for name, p in large.model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=0, atol=rounding(largest, n=n))


class PoisonedTask(PretrainingTask):
    """A task whose loss becomes NaN at its n-th call."""

    def __init__(self, bad_call):
        super().__init__()
        self.calls, self.bad_call = 0, bad_call

    def loss_sum(self, model, batch):
        self.calls += model.training
        loss = super().loss_sum(model, batch)
        return loss * math.nan if model.training and self.calls == self.bad_call else loss


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_batch(tiny_run, tmp_path):
    good, train, val = tiny_run(tmp_path / "good", checkpoint_every_steps=2, max_steps=4)
    good.fit(train, val)
    trainer, train, val = tiny_run(tmp_path / "bad", checkpoint_every_steps=2)
    trainer.task = PoisonedTask(bad_call=5)
    with pytest.raises(NonFiniteLossError, match=r"loss of step 5 .* epoch 0, batch 4"):
        trainer.fit(train, val)
    assert trainer.progress.step == 4
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    folder, damaged = newest_good_checkpoint(tmp_path / "bad")
    assert folder.name == "step-00000004"
    assert not damaged


def test_a_gradient_that_is_not_finite_stops_before_the_update(tiny_run):
    trainer, train, val = tiny_run()
    parameter = trainer.model.final_norm.scale
    parameter.register_hook(lambda grad: grad * math.inf)
    before = weights(trainer)
    with pytest.raises(NonFiniteLossError, match="gradient of step 1"):
        trainer.fit(train, val)
    assert_same_weights(before, weights(trainer))


def test_a_step_without_a_target_is_an_error(tiny_run):
    trainer, train, val = tiny_run()
    rows = train.examples.batch

    def masked(indices):
        batch = rows(indices)
        return Batch(inputs=batch.inputs, targets=torch.full_like(batch.targets, IGNORE_INDEX))

    train.examples.batch = masked
    with pytest.raises(DataError, match="step 1 needs a target"):
        trainer.fit(train, val)


def test_patience_ends_a_run_that_gets_no_better(tiny_run, tmp_path):
    trainer, train, val = tiny_run(
        tmp_path, max_steps=500, eval_every_steps=1, patience=3, learning_rate=1e-9, keep_checkpoints=1
    )
    values = iter([5.0, 4.0, 4.5, 4.5, 4.5, 1.0])
    trainer.task.metrics = lambda model, loader: {"loss": next(values)}
    assert trainer.fit(train, val).step == 4
    assert trainer.progress.best_step == 1


def test_the_clock_alone_can_end_a_run(tiny_run):
    trainer, train, val = tiny_run(max_steps=None, max_minutes=0.01)
    progress = trainer.fit(train, val)
    assert progress.step > 0
    assert progress.elapsed_s == pytest.approx(0.6, abs=0.5)


def test_epochs_end_a_run_after_all_their_batches(tiny_run):
    trainer, train, val = tiny_run(max_steps=None, epochs=2.0)
    assert trainer.fit(train, val).step == 2 * len(train)


def test_old_checkpoints_go_and_the_best_and_newest_stay(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=2, eval_every_steps=2, keep_checkpoints=2)
    losses = iter([9.0, 5.0, 1.0, 5.0, 5.0, 5.0, 5.0])
    trainer.task.metrics = lambda model, loader: {"loss": next(losses)}
    trainer.fit(train, val)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "step-00000004", "step-00000010", "step-00000012",
    ]  # fmt: skip
    assert load_model(tmp_path / "best").folder.name == "step-00000004"
    assert load_model(tmp_path / "last").folder.name == "step-00000012"


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


def test_resuming_with_other_data_or_another_base_is_refused(tiny_run, tmp_path):
    """The same number of batches does not make it the same text."""
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.run = replace(trainer.run, facts={"data_fingerprint": "one"})
    trainer.fit(train, val)
    other, train, val = tiny_run(tmp_path, max_steps=8)
    other.run = replace(other.run, facts={"data_fingerprint": "two"})
    with pytest.raises(CheckpointError, match=r"another data_fingerprint \(one\), found two"):
        other.fit(train, val, resume=True)


def test_a_new_run_does_not_mix_with_an_earlier_one(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.fit(train, val)
    again, train, val = tiny_run(tmp_path, max_steps=4)
    with pytest.raises(CheckpointError, match="must be new"):
        again.fit(train, val)
