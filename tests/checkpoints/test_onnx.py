"""ONNX files in onnxruntime: the same logits for any batch and length."""

import sys

import pytest
import torch

from scratchlm.checkpoints import onnx as onnx_files
from scratchlm.checkpoints.onnx import ONNXModel, export_onnx
from scratchlm.core.errors import CheckpointError, ConfigError, MissingDependencyError
from scratchlm.finetuning.heads import replace_head
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from tests.tiny import LLAMA_LAYERS

TOLERANCE = 1e-5  # largest difference of any logit, float32
SIZES = {"vocab_size": 60, "context_length": 16, "emb_dim": 16, "n_heads": 4, "n_layers": 2, "drop_rate": 0.0}
LLAMA = {**LLAMA_LAYERS, "n_kv_heads": 2}


def make(**changes) -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(GPTConfig(**SIZES, **changes)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True, "qkv_bias": True}, LLAMA])
def test_onnxruntime_gives_our_logits_for_any_shape(changes, tmp_path):
    model = make(**changes)
    theirs = ONNXModel(export_onnx(tmp_path / "a.onnx", model), model.config)
    for shape in ((1, 1), (1, 5), (3, 7), (2, 16)):
        ids = torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert (theirs(ids) - model(ids)).abs().max() <= TOLERANCE
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.slow
def test_a_classifiers_scores_are_exported_too(tmp_path):
    model = make()
    replace_head(model, 3)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        written = ONNXModel(export_onnx(tmp_path / "a.onnx", model.eval()), model.config)(ids)
        assert (written - model(ids)).abs().max() <= TOLERANCE


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="cannot be loaded as ONNX"):
        ONNXModel(tmp_path / "a.onnx", make().config)


def test_a_model_too_large_for_one_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="use --to gguf or hf"):
        export_onnx(tmp_path / "a.onnx", make())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"onnxscript.*scratchlm\[onnx\]"):
        export_onnx(tmp_path / "a.onnx", make())
