"""Checkpoints of a run: the best is saved when it happens, the good ones stay, and only finite numbers are saved."""

from __future__ import annotations

import logging
import os
import signal

import pytest
import torch

from scratchlm.checkpoints.store import (
    MANIFEST,
    checkpoint_step,
    list_checkpoints,
    load_model,
    load_tensors,
    resolve_model,
    save_tensors,
    verify,
)
from scratchlm.core.errors import CheckpointError, NonFiniteLossError
from scratchlm.core.files import read_json, sha256_of_file, write_json
from scratchlm.training import checkpointing
from scratchlm.training.history import History
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.schedule import learning_rate


class StopAt:
    """A callback that asks for a stop after a step, or kills the process."""

    def __init__(self, step, number=signal.SIGINT):
        self.step, self.number = step, number

    def on_step(self, record):
        if record.step == self.step:
            os.kill(os.getpid(), self.number)

    def on_evaluation(self, step, metrics): ...

    def on_sample(self, step, prompt, text): ...

    def on_checkpoint(self, step, folder): ...


def steps(run):
    return [checkpoint_step(folder) for folder in list_checkpoints(run)]


def with_losses(trainer, losses):
    """Make the evaluations give these validation losses, by step."""
    trainer.task.metrics = lambda model, loader: {"loss": losses.get(trainer.progress.step, 9.0)}


def stopped_at(run, step):
    trainer, train, val = run
    trainer.callbacks = [StopAt(step)]
    with pytest.raises(StoppedBySignal):
        trainer.fit(train, val)
    return trainer


def damage(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def poison(folder, name, file="model.safetensors"):
    """Save an infinity in a checkpoint whose hashes are right, as earlier versions did."""
    tensors = load_tensors(folder / file)
    tensors[name].view(-1)[0] = float("inf")
    save_tensors(folder / file, tensors)
    manifest = read_json(folder / MANIFEST)
    facts = {"sha256": sha256_of_file(folder / file), "size_bytes": (folder / file).stat().st_size}
    write_json(folder / MANIFEST, {**manifest, "files": {**manifest["files"], file: facts}})
    verify(folder)


# --- the best


def test_a_new_best_is_saved_when_it_happens_and_stays(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=12, eval_every_steps=2, checkpoint_every_steps=6)
    with_losses(trainer, {2: 5.0, 4: 1.0, 12: 3.0})
    trainer.fit(train, val)
    assert steps(tmp_path) == [4, 6, 12]
    assert resolve_model(tmp_path / "best").name == "step-00000004"
    assert read_json(resolve_model(tmp_path / "best") / MANIFEST)["val_loss"] == 1.0


@pytest.mark.parametrize(("use", "step"), [("best", 4), ("last", 12)])
def test_plain_run_is_what_use_says_and_the_trained_model_is_the_same(tiny_run, tmp_path, use, step):
    trainer, train, val = tiny_run(tmp_path, eval_every_steps=2, use=use)
    with_losses(trainer, {4: 1.0, 12: 3.0})
    trainer.fit(train, val)
    loaded = load_model(tmp_path)
    assert checkpoint_step(loaded.folder) == trainer.used_step == step
    assert trainer.used_val_loss == {"best": 1.0, "last": 3.0}[use]
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, loaded.model.state_dict()[name]), name


def test_without_a_run_folder_the_best_weights_are_kept_in_memory(tiny_run, tmp_path):
    weights = []
    for folder in (tmp_path, None):
        trainer, train, val = tiny_run(folder, eval_every_steps=2)
        with_losses(trainer, {4: 1.0})
        trainer.fit(train, val)
        assert trainer.used_step == 4
        weights.append(trainer.model.state_dict())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


def test_the_start_is_no_result_of_training(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=4, eval_every_steps=2)
    with_losses(trainer, {0: 0.1, 2: 2.0, 4: 3.0})
    trainer.fit(train, val)
    assert (trainer.used_step, trainer.progress.best_step) == (2, 2)


def test_a_use_changed_on_resuming_a_finished_run_counts_from_then_on(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, eval_every_steps=2)
    with_losses(trainer, {4: 1.0})
    trainer.fit(train, val)
    again, train, val = tiny_run(tmp_path, eval_every_steps=2, use="last")
    again.fit(train, val, resume=True)
    assert resolve_model(tmp_path).name == "step-00000012"


# --- patience


@pytest.mark.parametrize("stop_at", range(1, 14))
def test_stopping_and_extending_change_no_patience_and_no_best(tiny_run, tmp_path, stop_at):
    losses = {3: 4.0, 6: 3.0, 9: 3.5, 12: 3.6, 15: 3.7}
    losses |= {step: 0.5 for step in range(16) if step % 3}  # unscheduled looks must not count
    settings = {"eval_every_steps": 3, "patience": 3, "schedule": "constant", "checkpoint_every_steps": 2}
    undisturbed, train, val = tiny_run(tmp_path / "a", max_steps=30, **settings)
    with_losses(undisturbed, losses)
    undisturbed.fit(train, val)
    assert undisturbed.progress.step == 15

    short, train, val = tiny_run(tmp_path / "b", max_steps=stop_at, **settings)
    with_losses(short, losses)
    short.fit(train, val)
    longer, train, val = tiny_run(tmp_path / "b", max_steps=30, **settings)
    with_losses(longer, losses)
    longer.fit(train, val, resume=True)
    for name in ("step", "best_step", "best_val_loss", "evals_since_best"):
        assert getattr(longer.progress, name) == getattr(undisturbed.progress, name), name


# --- what stays


def test_rotation_counts_only_what_verifies_and_keeps_the_one_just_written_and_resumed_from(
    tiny_run, tmp_path
):
    settings = {"checkpoint_every_steps": 4, "keep_checkpoints": 1, "eval_every_steps": 0}
    trainer = stopped_at(tiny_run(tmp_path, **{**settings, "keep_checkpoints": 3}), 11)
    assert steps(tmp_path) == [4, 8, 11]
    damage(list_checkpoints(tmp_path)[-1])
    trainer, train, val = tiny_run(tmp_path, **settings)
    trainer.callbacks = [StopAt(10)]
    with pytest.raises(StoppedBySignal):
        trainer.fit(train, val, resume=True)
    assert trainer.resumed_from == 8
    assert steps(tmp_path) == [8, 10, 11]  # 11 is damaged, and neither counted nor deleted
    assert resolve_model(tmp_path).name == "step-00000010"


def test_a_checkpoint_damaged_later_does_not_push_a_good_one_out(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=2, keep_checkpoints=2, eval_every_steps=0)

    class Damaging(StopAt):
        def on_checkpoint(self, step, folder):
            if step in (8, 10):
                damage(folder)

    trainer.callbacks = [Damaging(99)]
    trainer.fit(train, val)
    good = []
    for folder in list_checkpoints(tmp_path):
        try:
            verify(folder)
        except CheckpointError:
            continue
        good.append(checkpoint_step(folder))
    assert good == [6, 12]


def test_unchanged_checkpoints_are_hashed_once(tiny_run, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(checkpointing, "verify", lambda folder: hashed.append(folder.name) or verify(folder))
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=2, keep_checkpoints=3, eval_every_steps=0)
    trainer.fit(train, val)
    assert sorted(hashed) == [f"step-{step:08d}" for step in range(2, 13, 2)]


# --- finite numbers


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
    with pytest.raises(
        NonFiniteLossError, match=r"of step 5 must be finite, found nan at .*final_norm.scale"
    ):
        trainer.fit(train)
    assert steps(tmp_path) == ([2, 4] if use_run else [])


def test_moments_that_are_not_finite_are_never_saved(tiny_run, tmp_path):
    trainer, train, _ = tiny_run(tmp_path, checkpoint_every_steps=2, max_steps=5)

    class Breaking(StopAt):
        def on_step(self, record):
            if record.step == 4:
                weight = trainer.model.final_norm.scale
                trainer.optimizers.parts[0].state[weight]["exp_avg_sq"][0] = float("inf")

    trainer.callbacks = [Breaking(0)]
    with pytest.raises(NonFiniteLossError, match=r"found inf at optimizer\.final_norm\.scale\.exp_avg_sq"):
        trainer.fit(train)
    assert steps(tmp_path) == [2]


def test_a_learning_rate_beyond_float32_is_our_error_and_saves_nothing(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=3, learning_rate=1e39, warmup_steps=0, schedule="constant",
                                   checkpoint_every_steps=1)  # fmt: skip
    with pytest.raises(NonFiniteLossError) as error:
        trainer.fit(train, val)
    assert error.value.exit_code == 6
    assert "learning rate" in str(error.value)
    assert steps(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.safetensors", "final_norm.scale"),
        ("training_state.safetensors", "optimizer.final_norm.scale.exp_avg"),
    ],
)
def test_a_run_goes_on_from_before_a_checkpoint_that_is_not_finite(tiny_run, tmp_path, caplog, file, name):
    undisturbed, train, val = tiny_run(tmp_path / "a", checkpoint_every_steps=4)
    undisturbed.fit(train, val)
    stopped_at(tiny_run(tmp_path / "b", checkpoint_every_steps=4), 10)
    poison(list_checkpoints(tmp_path / "b")[-1], name, file)
    trainer, train, val = tiny_run(tmp_path / "b", checkpoint_every_steps=4)
    trainer.fit(train, val, resume=True)
    assert trainer.resumed_from == 8
    assert f"found inf in {name}" in caplog.text
    for one, other in zip(undisturbed.model.parameters(), trainer.model.parameters()):
        assert torch.equal(one, other)


# --- the schedule


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup-stable-decay", "constant"])
def test_extending_a_schedule_that_decays_warns_with_both_rates(tiny_run, tmp_path, caplog, schedule):
    trainer, train, val = tiny_run(tmp_path, max_steps=10, schedule=schedule)
    trainer.fit(train, val)
    longer, train, val = tiny_run(tmp_path, max_steps=20, schedule=schedule)
    caplog.set_level(logging.WARNING)
    longer.fit(train, val, resume=True)
    told = [record.getMessage() for record in caplog.records if "learning rate" in record.getMessage()]
    if schedule == "constant":
        assert told == []
        return
    before = learning_rate(trainer.config, step=10, n_steps=10)
    after = learning_rate(longer.config, step=11, n_steps=20)
    assert len(told) == 1
    assert f"of step 11 becomes {after:.3g}, it was {before:.3g}" in told[0]
    assert "ends at step 20 and not at step 10" in told[0]


def test_resuming_with_the_same_end_warns_of_nothing(tiny_run, tmp_path, caplog):
    stopped_at(tiny_run(tmp_path), 5)
    trainer, train, val = tiny_run(tmp_path)
    trainer.fit(train, val, resume=True)
    assert "learning rate" not in caplog.text


# --- logs


def test_a_fresh_start_never_appends_to_an_old_log(tiny_run, tmp_path):
    for name in ("metrics.jsonl", "samples.jsonl"):
        History(tmp_path / name).append({"kind": "step", "step": 0, "text": "of another run"})
    trainer, train, val = tiny_run(tmp_path, max_steps=2)
    trainer.fit(train, val)
    assert "of another run" not in (tmp_path / "metrics.jsonl").read_text()
    assert (tmp_path / "samples.jsonl").read_text() == ""


# --- kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_at_every_step_it_ends_as_the_undisturbed_run(tiny_run, tmp_path, optimizer):
    """Weights, moments, best, patience, logs and the list of checkpoints."""
    settings = {"eval_every_steps": 3, "checkpoint_every_steps": 4, "max_steps": 20, "patience": 4,
                "optimizer": optimizer, "learning_rate": 3e-2}  # fmt: skip
    undisturbed, train, val = tiny_run(tmp_path / "a", **settings)
    undisturbed.fit(train, val)
    for step in range(1, undisturbed.progress.step + 1):
        run = tmp_path / f"b{step}"
        child = os.fork()
        if child == 0:
            trainer, train, val = tiny_run(run, **settings)
            trainer.callbacks = [StopAt(step, signal.SIGKILL)]
            trainer.fit(train, val)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        trainer, train, val = tiny_run(run, **settings)
        trainer.fit(train, val, resume=True)
        for name in ("step", "best_step", "best_val_loss", "evals_since_best", "val_loss", "train_loss"):
            assert getattr(trainer.progress, name) == getattr(undisturbed.progress, name), (step, name)
        assert trainer.used_step == undisturbed.used_step
        assert steps(run) == steps(tmp_path / "a"), step
        for one, other in zip(list_checkpoints(run), list_checkpoints(tmp_path / "a")):
            for file in ("model.safetensors", "training_state.safetensors"):
                assert (one / file).read_bytes() == (other / file).read_bytes(), (step, one.name, file)
        clocks = ("tokens_per_s", "elapsed_s", "memory_bytes")
        logs = [History(folder / "metrics.jsonl").records() for folder in (run, tmp_path / "a")]
        for record in (*logs[0], *logs[1]):
            for name in clocks:
                record.pop(name, None)
        assert logs[0] == logs[1], step
