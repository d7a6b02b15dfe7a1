"""A resumed run continues bit for bit from its newest good checkpoint, and only with the same settings and data."""

import logging
import os
import signal
from dataclasses import replace

import pytest
import torch

from scratchlm.checkpoints.store import MANIFEST, list_checkpoints, load_tensors, save_tensors, verify
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_json, write_json
from scratchlm.data import order
from scratchlm.model import loss
from scratchlm.training import resume
from scratchlm.training.history import History
from scratchlm.training.schedule import learning_rate
from tests.conftest import StopAt
from tests.training.conftest import (
    assert_same_run,
    assert_same_weights,
    damage,
    finished,
    metrics,
    refused,
    stopped_at,
)


def poison(folder, name, file):
    """Save an infinity in a checkpoint whose hashes are right, as earlier versions did."""
    tensors = load_tensors(folder / file)
    tensors[name].view(-1)[0] = float("inf")
    save_tensors(folder / file, tensors)
    renew_hash(folder, file)


def renew_hash(folder, file):
    """Make a changed file of a checkpoint valid."""
    manifest = read_json(folder / MANIFEST)
    facts = {"sha256": sha256_of_file(folder / file), "size_bytes": (folder / file).stat().st_size}
    write_json(folder / MANIFEST, {**manifest, "files": {**manifest["files"], file: facts}})
    verify(folder)


@pytest.mark.parametrize(("stop_at", "optimizer"), [(1, "adamw"), (5, "muon"), (7, "adamw"), (11, "adamw")])
def test_a_stopped_and_resumed_run_equals_the_undisturbed_one_bit_for_bit(
    tiny_run, tmp_path, stop_at, optimizer
):
    settings = {"checkpoint_every_steps": 3, "eval_every_steps": 4, "accumulate": 2, "optimizer": optimizer}
    undisturbed = finished(tiny_run(tmp_path / "a", **settings))

    stopped_at(tiny_run(tmp_path / "b", **settings), stop_at)
    torch.rand(100)  # whatever else happens in between must not matter
    resumed = finished(tiny_run(tmp_path / "b", **settings), resume=True)

    assert resumed.resumed_from == stop_at
    assert_same_weights(undisturbed, resumed)
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")


def test_with_the_loss_in_parts_it_equals_the_undisturbed_run_too(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", 2000)
    monkeypatch.setattr(loss, "POSITIONS_AT_ONCE", 5)  # 6 of the 32 positions over 300 tokens at once
    undisturbed = finished(tiny_run(tmp_path / "a"))
    stopped_at(tiny_run(tmp_path / "b"), 5)
    assert_same_weights(undisturbed, finished(tiny_run(tmp_path / "b"), resume=True))
    monkeypatch.undo()
    whole = finished(tiny_run(tmp_path / "c"))
    assert undisturbed.progress.train_loss == pytest.approx(whole.progress.train_loss, rel=1e-5)  # rounding


def test_resuming_in_the_middle_of_a_later_epoch_goes_on_with_the_next_batch(tiny_run, tmp_path):
    _, train, _ = tiny_run()
    n_steps, stop_at = 2 * len(train) + 5, len(train) + 3
    undisturbed = finished(tiny_run(tmp_path / "a", max_steps=n_steps))
    stopped_at(tiny_run(tmp_path / "b", max_steps=n_steps), stop_at)
    resumed = finished(tiny_run(tmp_path / "b", max_steps=n_steps), resume=True)
    assert_same_weights(undisturbed, resumed)


def test_a_run_of_an_earlier_version_resumes_in_its_own_order(tiny_run, tmp_path, monkeypatch):
    undisturbed = finished(tiny_run(tmp_path / "a"))
    stopped_at(tiny_run(tmp_path / "b"), 5)
    stopped_at(tiny_run(tmp_path / "c"), 5)
    monkeypatch.setattr(order, "SORTED_UP_TO", 8)  # as if these examples were many
    of_today = finished(tiny_run(tmp_path / "b"), resume=True)
    with pytest.raises(AssertionError):
        assert_same_weights(undisturbed, of_today)

    (checkpoint,) = list_checkpoints(tmp_path / "c")
    state = read_json(checkpoint / "training_state.json")
    assert state["progress"].pop("order_version") == 2
    write_json(checkpoint / "training_state.json", state)
    renew_hash(checkpoint, "training_state.json")
    assert_same_weights(undisturbed, finished(tiny_run(tmp_path / "c"), resume=True))


@pytest.mark.parametrize("stop_at", range(1, 14))
def test_stopping_and_extending_change_no_patience_and_no_best(tiny_run, tmp_path, stop_at):
    losses = {3: 4.0, 6: 3.0, 9: 3.5, 12: 3.6, 15: 3.7}
    losses |= {step: 0.5 for step in range(16) if step % 3}  # unscheduled looks must not count
    settings = {"eval_every_steps": 3, "patience": 3, "schedule": "constant", "checkpoint_every_steps": 2}
    undisturbed = finished(tiny_run(tmp_path / "a", max_steps=30, **settings), losses=losses)
    assert undisturbed.progress.step == 15

    finished(tiny_run(tmp_path / "b", max_steps=stop_at, **settings), losses=losses)
    longer = finished(tiny_run(tmp_path / "b", max_steps=30, **settings), losses=losses, resume=True)
    for name in ("step", "best_step", "best_val_loss", "evals_since_best"):
        assert getattr(longer.progress, name) == getattr(undisturbed.progress, name), name


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tiny_run, tmp_path, caplog):
    first = finished(tiny_run(tmp_path, checkpoint_every_steps=4))
    damaged = damage(list_checkpoints(tmp_path)[-1])
    again = finished(tiny_run(tmp_path, checkpoint_every_steps=4), resume=True)
    assert again.resumed_from == 8
    assert str(damaged) in caplog.text
    assert_same_weights(first, again)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.safetensors", "final_norm.scale"),
        ("training_state.safetensors", "optimizer.final_norm.scale.exp_avg"),
    ],
)
def test_a_run_goes_on_from_before_a_checkpoint_that_is_not_finite(tiny_run, tmp_path, caplog, file, name):
    undisturbed = finished(tiny_run(tmp_path / "a", checkpoint_every_steps=4))
    stopped_at(tiny_run(tmp_path / "b", checkpoint_every_steps=4), 10)
    poison(list_checkpoints(tmp_path / "b")[-1], name, file)
    trainer = finished(tiny_run(tmp_path / "b", checkpoint_every_steps=4), resume=True)
    assert trainer.resumed_from == 8
    assert f"holds inf in {name}" in caplog.text
    assert_same_weights(undisturbed, trainer)


def test_only_damaged_checkpoints_are_an_error_and_nothing_is_lost(tiny_run, tmp_path):
    finished(tiny_run(tmp_path, checkpoint_every_steps=6))
    for folder in list_checkpoints(tmp_path):
        (folder / "model.safetensors").write_bytes(b"")
    refused(tiny_run(tmp_path), r"all checkpoints in .* are damaged")
    assert len(list_checkpoints(tmp_path)) == 2


def test_resuming_with_another_sample_order_is_refused(tiny_run, tmp_path):
    finished(tiny_run(tmp_path, max_steps=4))
    refused(tiny_run(tmp_path, max_steps=8, batch_size=2), "batch_size=4, now it is 2")


@pytest.mark.parametrize(
    ("name", "value"), [("learning_rate", 0.5), ("weight_decay", 0.0), ("schedule", "linear"), ("beta2", 0.9)]
)
def test_resuming_with_a_setting_that_decides_the_weights_is_refused(tiny_run, tmp_path, name, value):
    finished(tiny_run(tmp_path, max_steps=4))
    refused(
        tiny_run(tmp_path, max_steps=8, **{name: value}), f"was trained with {name}=.*, now it is {value}"
    )


def test_resuming_with_other_data_or_another_base_is_refused(tiny_run, tmp_path):
    """The same number of batches does not make it the same text."""
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    trainer.run = replace(trainer.run, facts={"data_fingerprint": "one"})
    trainer.fit(train, val)
    other, train, val = tiny_run(tmp_path, max_steps=8)
    other.run = replace(other.run, facts={"data_fingerprint": "two"})
    with pytest.raises(CheckpointError, match=r"another data_fingerprint \(one\), now it is two"):
        other.fit(train, val, resume=True)


def test_a_run_goes_on_with_another_end_and_other_looks_and_with_settings_that_were_not_known_then(
    tiny_run, tmp_path, monkeypatch
):
    finished(tiny_run(tmp_path, max_steps=4))
    real = resume.load_training_state

    def of_an_earlier_version(folder):
        state = real(folder)
        del state.values["config"]["muon_learning_rate"]
        return state

    monkeypatch.setattr(resume, "load_training_state", of_an_earlier_version)
    longer, train, val = tiny_run(tmp_path, max_steps=6, eval_every_steps=1, keep_checkpoints=5)
    assert longer.fit(train, val, resume=True).step == 6
    assert longer.resumed_from == 4


def test_resuming_a_finished_run_changes_nothing(tiny_run, tmp_path):
    finished(tiny_run(tmp_path))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    again, train, val = tiny_run(tmp_path)
    assert again.fit(train, val, resume=True).step == 12
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == before


def test_a_new_run_does_not_mix_with_an_earlier_one(tiny_run, tmp_path):
    finished(tiny_run(tmp_path, max_steps=4))
    again, train, val = tiny_run(tmp_path, max_steps=4)
    with pytest.raises(CheckpointError, match="already holds checkpoints"):
        again.fit(train, val)


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_in_the_place_of_the_checkpoints_is_named_before_the_first_step(tiny_run, tmp_path, resume):
    trainer, train, val = tiny_run(tmp_path, max_steps=4)
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="checkpoints is a file, where checkpoints would be written"):
        trainer.fit(train, val, resume=resume)
    assert trainer.progress.step == 0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "warmup-stable-decay", "constant"])
def test_extending_a_schedule_that_decays_warns_with_both_rates(tiny_run, tmp_path, caplog, schedule):
    trainer = finished(tiny_run(tmp_path, max_steps=10, schedule=schedule))
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
    finished(tiny_run(tmp_path), resume=True)
    assert "learning rate" not in caplog.text


def test_a_fresh_start_never_appends_to_an_old_log(tiny_run, tmp_path):
    for name in ("metrics.jsonl", "samples.jsonl"):
        History(tmp_path / name).append({"kind": "step", "step": 0, "text": "of another run"})
    finished(tiny_run(tmp_path, max_steps=2))
    assert "of another run" not in (tmp_path / "metrics.jsonl").read_text()
    assert (tmp_path / "samples.jsonl").read_text() == ""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_at_every_step_it_ends_as_the_undisturbed_run(tiny_run, tmp_path, optimizer):
    """Weights, moments, best, patience, logs and the list of checkpoints."""
    settings = {"eval_every_steps": 3, "checkpoint_every_steps": 4, "max_steps": 20, "patience": 4,
                "optimizer": optimizer, "learning_rate": 3e-2}  # fmt: skip
    undisturbed = finished(tiny_run(tmp_path / "a", **settings))
    for step in range(1, undisturbed.progress.step + 1):
        run = tmp_path / f"b{step}"
        child = os.fork()
        if child == 0:
            trainer, train, val = tiny_run(run, **settings)
            trainer.callbacks = [StopAt(step, signal.SIGKILL)]
            trainer.fit(train, val)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        trainer = finished(tiny_run(run, **settings), resume=True)
        for name in ("step", "best_step", "best_val_loss", "evals_since_best", "val_loss", "train_loss"):
            assert getattr(trainer.progress, name) == getattr(undisturbed.progress, name), (step, name)
        assert trainer.used_step == undisturbed.used_step
        assert_same_run(run, tmp_path / "a")
