"""The task of a saved model can be changed, and the folder still verifies."""

import pytest

from scratchlm.checkpoints.store import load_model, save_model, verify
from scratchlm.checkpoints.update_task import update_task
from scratchlm.core.errors import CheckpointError


@pytest.mark.parametrize("has_links", [True, False])
def test_only_the_task_changes(tiny_model, tiny_tokenizer, tmp_path, monkeypatch, has_links):
    folder = save_model(tmp_path / "m", tiny_model, tiny_tokenizer, task={"kind": "a"}, facts={"step": 3})
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    if not has_links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    update_task(folder, {"kind": "a", "threshold": 0.25})
    after = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"task.json", "manifest.json"}
    assert verify(folder)["step"] == 3
    assert load_model(folder).task == {"kind": "a", "threshold": 0.25}


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        update_task(tmp_path, {})
