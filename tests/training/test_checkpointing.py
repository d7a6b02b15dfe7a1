"""Checkpoints of a run: the best is saved at once, the good ones stay, and trainable weights survive exactly."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from scratchlm.checkpoints.store import (
    MANIFEST,
    checkpoint_step,
    list_checkpoints,
    load_model,
    resolve_model,
    verify,
)
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_json
from scratchlm.training import checkpointing
from scratchlm.training.checkpointing import restore_trainable_state, trainable_state
from tests.conftest import StopAt
from tests.training.conftest import assert_same_weights, checkpoint_steps, damage, finished, stopped_at


def test_a_new_best_is_saved_when_it_happens_and_stays(tiny_run, tmp_path):
    finished(
        tiny_run(tmp_path, max_steps=12, eval_every_steps=2, checkpoint_every_steps=6),
        losses={2: 5.0, 4: 1.0, 12: 3.0},
    )
    assert checkpoint_steps(tmp_path) == [4, 6, 12]
    assert resolve_model(tmp_path / "best").name == "step-00000004"
    assert read_json(resolve_model(tmp_path / "best") / MANIFEST)["val_loss"] == 1.0


@pytest.mark.parametrize(("use", "step"), [("best", 4), ("last", 12)])
def test_plain_run_is_what_use_says_and_the_trained_model_is_the_same(tiny_run, tmp_path, use, step):
    trainer = finished(tiny_run(tmp_path, eval_every_steps=2, use=use), losses={4: 1.0, 12: 3.0})
    loaded = load_model(tmp_path)
    assert checkpoint_step(loaded.folder) == trainer.used_step == step
    assert trainer.used_val_loss == {"best": 1.0, "last": 3.0}[use]
    assert_same_weights(trainer, loaded)


def test_without_a_run_folder_the_best_weights_are_kept_in_memory(tiny_run, tmp_path):
    on_disk, in_memory = (
        finished(tiny_run(folder, eval_every_steps=2), losses={4: 1.0}) for folder in (tmp_path, None)
    )
    assert on_disk.used_step == in_memory.used_step == 4
    assert on_disk.used_val_loss == in_memory.used_val_loss == 1.0
    assert_same_weights(on_disk, in_memory)


def test_the_start_is_no_result_of_training(tiny_run, tmp_path):
    trainer = finished(tiny_run(tmp_path, max_steps=4, eval_every_steps=2), losses={0: 0.1, 2: 2.0, 4: 3.0})
    assert (trainer.used_step, trainer.progress.best_step) == (2, 2)


def test_a_use_changed_on_resuming_a_finished_run_counts_from_then_on(tiny_run, tmp_path):
    finished(tiny_run(tmp_path, eval_every_steps=2), losses={4: 1.0})
    finished(tiny_run(tmp_path, eval_every_steps=2, use="last"), resume=True)
    assert resolve_model(tmp_path).name == "step-00000012"


def test_old_checkpoints_go_and_the_best_and_newest_stay(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, checkpoint_every_steps=2, eval_every_steps=2, keep_checkpoints=2)
    losses = iter([9.0, 5.0, 1.0, 5.0, 5.0, 5.0, 5.0])
    trainer.task.metrics = lambda model, loader, total: {"loss": next(losses)}
    trainer.fit(train, val)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "step-00000004", "step-00000010", "step-00000012",
    ]  # fmt: skip
    assert load_model(tmp_path / "best").folder.name == "step-00000004"
    assert load_model(tmp_path / "last").folder.name == "step-00000012"


def test_rotation_counts_only_what_verifies_and_keeps_the_one_just_written_and_resumed_from(
    tiny_run, tmp_path
):
    settings = {"checkpoint_every_steps": 4, "keep_checkpoints": 1, "eval_every_steps": 0}
    stopped_at(tiny_run(tmp_path, **{**settings, "keep_checkpoints": 3}), 11)
    assert checkpoint_steps(tmp_path) == [4, 8, 11]
    damage(list_checkpoints(tmp_path)[-1])
    trainer = stopped_at(tiny_run(tmp_path, **settings), 10, resume=True)
    assert trainer.resumed_from == 8
    assert checkpoint_steps(tmp_path) == [8, 10, 11]  # 11 is damaged, and neither counted nor deleted
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


def test_a_validation_loss_of_the_wrong_type_in_a_manifest_is_never_the_best(tiny_run, tmp_path):
    trainer, train, val = tiny_run(tmp_path, max_steps=4, eval_every_steps=2)
    trainer.fit(train, val)
    manifest = list_checkpoints(tmp_path)[0] / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"val_loss": "low"}))
    trainer, train, val = tiny_run(tmp_path, max_steps=8, eval_every_steps=2)
    assert trainer.fit(train, val, resume=True).step == 8


def test_a_run_that_ended_before_it_deleted_old_checkpoints_does_so_when_it_is_resumed(
    tiny_run, tmp_path, monkeypatch
):
    settings = {"checkpoint_every_steps": 6, "keep_checkpoints": 1, "eval_every_steps": 0}
    with monkeypatch.context() as patch:
        patch.setattr(checkpointing.RunCheckpoints, "_delete_old", lambda *args: None)
        finished(tiny_run(tmp_path, **settings))
    assert checkpoint_steps(tmp_path) == [6, 12]
    finished(tiny_run(tmp_path, **settings), resume=True)
    assert checkpoint_steps(tmp_path) == [12]


def test_unchanged_checkpoints_are_hashed_once(tiny_run, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(checkpointing, "verify", lambda folder: hashed.append(folder.name) or verify(folder))
    finished(tiny_run(tmp_path, checkpoint_every_steps=2, keep_checkpoints=3, eval_every_steps=0))
    assert sorted(hashed) == [f"step-{step:08d}" for step in range(2, 13, 2)]


def parameters(**shapes):
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def test_weights_come_back_to_the_last_bit_beside_other_tensors():
    before, after = parameters(a=(3, 2), b=(2,)), parameters(a=(3, 2), b=(2,))
    state = {**trainable_state(before), "optimizer.a.step": torch.tensor(1.0)}
    restore_trainable_state(after, state, where=Path("step-1"))
    for name, weight in before.items():
        assert torch.equal(after[name], weight)
        assert after[name].requires_grad


@pytest.mark.parametrize(
    "now", [{"a": (3, 2)}, {"a": (3, 2), "b": (3,)}, {"a": (3, 2), "b": (2,), "c": (1,)}]
)
def test_other_weights_are_refused_and_nothing_is_changed(now):
    here = parameters(**now)
    before = {name: weight.clone() for name, weight in here.items()}
    with pytest.raises(CheckpointError, match=r"[bc] has shape .* there and .* here \(1 differ\)"):
        restore_trainable_state(here, trainable_state(parameters(a=(3, 2), b=(2,))), where=Path("step-1"))
    assert all(torch.equal(here[name], before[name]) for name in here)
