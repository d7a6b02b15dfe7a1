"""Copies of adapter folders are verified by logits, appear as a whole or not at all, and replace nothing else."""

import copy
import json
import sys

import pytest
import torch

from scratchlm.checkpoints.store import LoadedModel
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning import peft_copy
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora
from scratchlm.finetuning.peft import export_peft, import_peft
from scratchlm.finetuning.peft_copy import copy_adapter
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe


@pytest.fixture(autouse=True)
def no_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)


@pytest.fixture
def base():
    torch.manual_seed(0)
    return GPTModel(GPTConfig(vocab_size=262, context_length=12, emb_dim=16, n_heads=2, n_layers=2)).eval()


@pytest.fixture
def adapter(base, tmp_path):
    return export_peft(tmp_path / "adapter", adapted(base), base="somewhere/else")


def adapted(base, *, n_classes=None):
    model = copy.deepcopy(base)
    if n_classes:
        replace_head(model, n_classes)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    replace_linear_with_lora(model.trf_blocks, 2, 4)
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def copied(base, source, target, **more):
    tokenizer = train_bpe(["the cat sat on the mat"], 262)

    def load_base() -> LoadedModel:
        model = copy.deepcopy(base)
        return LoadedModel(model=model, tokenizer=tokenizer, task={}, manifest={}, folder=source)

    return copy_adapter(source, target, load_base=load_base, base="runs/base", **more)[0]


def test_the_copy_computes_as_the_original_and_names_the_base(base, adapter, tmp_path):
    assert copied(base, adapter, tmp_path / "new" / "copy") < 1e-6
    settings = json.loads((tmp_path / "new" / "copy" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "runs/base"
    ids = torch.arange(12)[None]
    results = []
    for folder in (adapter, tmp_path / "new" / "copy"):
        model = copy.deepcopy(base)
        import_peft(model, folder)
        results.append(model(ids))
    torch.testing.assert_close(*results)
    assert (results[0] - base(ids)).abs().max() > 0.01
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["copy"]


def test_a_classifiers_adapter_goes_along_with_its_head(base, tmp_path):
    source = export_peft(tmp_path / "adapter", adapted(base, n_classes=3))
    assert copied(base, source, tmp_path / "copy") < 1e-5


def test_an_adapter_of_other_weights_is_refused_and_nothing_is_written(base, adapter, tmp_path):
    with torch.no_grad():
        base.trf_blocks[0].att.W_query.weight.add_(0.5)
    with pytest.raises(CheckpointError):
        copied(base, adapter, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_reads_back_otherwise_is_not_kept(base, adapter, tmp_path, monkeypatch):
    export = peft_copy.export_peft

    def spoilt(folder, model, **more):
        with torch.no_grad():
            next(lora_parameters(model)).mul_(1.5)
        return export(folder, model, **more)

    monkeypatch.setattr(
        peft_copy, "export_peft", lambda *a, **more: spoilt(a[0], copy.deepcopy(a[1]), **more)
    )
    with pytest.raises(CheckpointError, match=r"got a difference of .*; nothing was written"):
        copied(base, adapter, tmp_path / "copy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]
    monkeypatch.undo()
    assert copied(base, adapter, tmp_path / "copy", verify=False) is None


def test_an_older_target_is_replaced_only_with_overwrite_and_only_an_adapter(base, adapter, tmp_path):
    copied(base, adapter, tmp_path / "copy")
    with pytest.raises(CheckpointError, match="--overwrite"):
        copied(base, adapter, tmp_path / "copy")
    copied(base, adapter, tmp_path / "copy", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match="other files"):
        copied(base, adapter, tmp_path / "mine", overwrite=True)
    with pytest.raises(CheckpointError, match="must not be the source"):
        copied(base, adapter, adapter, overwrite=True)


def test_an_adapter_folder_with_other_work_in_it_is_not_replaced(base, adapter, tmp_path):
    copied(base, adapter, tmp_path / "copy")
    (tmp_path / "copy" / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match=r"other files \(letter\.txt\)"):
        copied(base, adapter, tmp_path / "copy", overwrite=True)
    assert (tmp_path / "copy" / "letter.txt").read_text() == "dear"
    with pytest.raises(CheckpointError, match="must not be inside the source"):
        copied(base, adapter, adapter / "sub")
