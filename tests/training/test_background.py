"""Checkpoints are written beside the training, from a consistent copy, one at a time; errors reach the training."""

import threading

import psutil
import pytest
import torch

from scratchlm.checkpoints.store import list_checkpoints, load_tensors, verify
from scratchlm.core.errors import CheckpointError, NonFiniteLossError
from scratchlm.training import checkpointing
from scratchlm.training.background import BackgroundJob
from tests.conftest import StopAt
from tests.training.conftest import assert_same_weights, checkpoint_steps, finished


def test_a_job_returns_its_result_once_and_raises_its_error_where_it_is_collected():
    job: BackgroundJob[int] = BackgroundJob()
    assert job.collect(wait=True) is None
    may_end = threading.Event()
    job.start(lambda: may_end.wait() and 7)
    assert job.collect(wait=False) is None
    may_end.set()
    assert job.collect(wait=True) == 7
    assert job.collect(wait=True) is None
    job.start(lambda: 1 // 0)
    job.wait()  # does not raise: an error that ends the training is not replaced
    with pytest.raises(ZeroDivisionError):
        job.collect(wait=False)
    job.start(lambda: 8)  # it can be used again
    assert job.collect(wait=True) == 8


class Gate(StopAt):
    """Lets checkpoints be written only when the training has gone on to a later step."""

    def __init__(self, monkeypatch, *, open_at):
        super().__init__(99)
        self.open_at, self.is_open, self.writing = open_at, threading.Event(), []
        real = checkpointing.save_model

        def save_model(folder, *args, **kwargs):
            self.writing.append(folder.name)
            assert self.is_open.wait(60)
            return real(folder, *args, **kwargs)

        monkeypatch.setattr(checkpointing, "save_model", save_model)

    def on_step(self, record):
        if record.step == self.open_at:
            self.is_open.set()


def test_a_checkpoint_holds_the_weights_of_its_step_although_training_goes_on(
    tiny_run, tmp_path, monkeypatch
):
    settings = {"checkpoint_every_steps": 3, "eval_every_steps": 0, "max_steps": 5}
    finished(tiny_run(tmp_path / "a", background_checkpoints=False, **settings))
    trainer, train, val = tiny_run(tmp_path / "b", **settings)
    trainer.callbacks = [gate := Gate(monkeypatch, open_at=5)]
    finished((trainer, train, val))
    assert gate.writing == ["step-00000003", "step-00000005"]
    for one, other in zip(list_checkpoints(tmp_path / "a"), list_checkpoints(tmp_path / "b"), strict=True):
        verify(other)
        for name in ("model.safetensors", "training_state.safetensors"):
            tensors, others = load_tensors(one / name), load_tensors(other / name)
            assert tensors.keys() == others.keys()
            assert all(torch.equal(tensors[key], others[key]) for key in tensors), name


def test_at_most_one_is_pending_and_the_next_save_waits_for_it(tiny_run, tmp_path, monkeypatch):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=3, eval_every_steps=0)
    gate = Gate(monkeypatch, open_at=99)
    threading.Timer(0.3, gate.is_open.set).start()
    steps = []
    gate.on_step = lambda record: (
        steps.append(record.step) or None if gate.is_open.is_set() else blocked(record.step)
    )

    def blocked(step):
        assert step <= 6, "the save of step 6 must wait for that of step 3"
        assert len(gate.writing) <= 1

    trainer.callbacks = [gate]
    finished((trainer, train, val))
    assert checkpoint_steps(tmp_path)[-1] == 12


def test_an_error_of_the_writer_ends_the_training_at_the_next_step(tiny_run, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_model", full_disk)
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=3, eval_every_steps=0)
    trainer.callbacks = [Waiting(trainer)]
    with pytest.raises(CheckpointError, match="the disk is full"):
        trainer.fit(train, val)
    assert trainer.progress.step in (3, 4)  # step 4 may be under way while step 3 is being written
    assert checkpoint_steps(tmp_path) == []


class Waiting(StopAt):
    """Waits after each step until nothing is being written."""

    def __init__(self, trainer):
        super().__init__(99)
        self.trainer = trainer

    def on_step(self, record):
        self.trainer._checkpoints.close()


def test_an_error_of_the_training_leaves_a_finished_checkpoint(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=3, eval_every_steps=0)
    real = trainer.task.loss_sum
    trainer.task.loss_sum = lambda model, batch: (
        real(model, batch) * (float("nan") if trainer.progress.step == 3 else 1)
    )
    with pytest.raises(NonFiniteLossError):
        trainer.fit(train, val)
    [folder] = list_checkpoints(tmp_path)
    verify(folder)


def test_without_room_for_a_copy_training_waits_instead(tiny_run, tmp_path, monkeypatch):
    settings = {"checkpoint_every_steps": 3, "eval_every_steps": 0}
    usual = finished(tiny_run(tmp_path / "a", **settings))
    free = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(checkpointing, "_copy_of", None)  # calling it would fail
    assert_same_weights(usual, finished(tiny_run(tmp_path / "b", **settings)))
    assert checkpoint_steps(tmp_path / "a") == checkpoint_steps(tmp_path / "b")


def test_the_last_checkpoint_is_written_without_a_copy(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "_copy_of", None)  # calling it would fail
    finished(tiny_run(tmp_path, checkpoint_every_steps=0, eval_every_steps=0))
    assert checkpoint_steps(tmp_path) == [12]
