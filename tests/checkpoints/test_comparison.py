"""Compare two models' logits, also with transformers and peft where they are installed."""

import importlib.util
import os
import sys

import pytest
import torch

from scratchlm.checkpoints import huggingface
from scratchlm.checkpoints.comparison import OutsideLogits, compare, n_classes, prompts
from scratchlm.checkpoints.conversion import convert
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import load_model, save_model
from scratchlm.cli.main import main
from scratchlm.core.errors import CheckpointError
from scratchlm.finetuning import peft_config
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora
from scratchlm.finetuning.peft import export_peft
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SIZES = {
    "vocab_size": 300,
    "context_length": 24,
    "emb_dim": 16,
    "n_heads": 2,
    "n_layers": 2,
    "drop_rate": 0.0,
}
LLAMA = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "linear_bias": False, "ff_dim": 24}
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("peft") is None,
    reason="transformers and peft are not installed",
)


def a_model(**changes) -> GPTModel:
    torch.manual_seed(1)
    model = GPTModel(GPTConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(
        ["the cat sat on the mat and the dog by the door " * 5], 300, special_tokens=["<|endoftext|>"]
    )


@pytest.fixture
def their_folder(tmp_path, tokenizer):
    return export_huggingface(tmp_path / "theirs", a_model(**LLAMA), tokenizer)


@pytest.fixture
def an_adapter(tmp_path, their_folder):
    model = open_model(their_folder).model
    replace_linear_with_lora(model.trf_blocks, 2, 4)
    for parameter in lora_parameters(model):
        torch.nn.init.normal_(parameter, std=0.3)
    return export_peft(tmp_path / "adapter", model, base=str(their_folder))


def test_equal_models_differ_by_nothing(tmp_path):
    assert compare(a_model(), a_model(), [], where=tmp_path) == (0.0, "scratchlm")


@pytest.mark.parametrize("which", ["source", "written"])
def test_another_programs_logits_are_compared_with_both(tmp_path, which):
    models = {"source": a_model(), "written": a_model()}
    with torch.no_grad():
        logits = models["source"](prompts(models["source"].config))
    assert compare(*models.values(), [OutsideLogits(logits, "a program")], where=tmp_path) == (
        0.0,
        "a program",
    )
    logits[1, 3, 5] += 15.0
    with pytest.raises(CheckpointError, match=r"as computed by a program, got a difference of 15"):
        compare(*models.values(), [OutsideLogits(logits, "a program")], where=tmp_path)


def test_the_reason_why_no_other_program_was_used_is_reported(tmp_path):
    theirs = [OutsideLogits(None, "scratchlm alone: transformers not installed")]
    assert (
        compare(a_model(), a_model(), theirs, where=tmp_path)[1]
        == "scratchlm alone: transformers not installed"
    )


@pytest.mark.parametrize(
    "logits", [torch.zeros(4, 24, 299), torch.zeros(4, 24, 301), torch.zeros(3, 24, 300)]
)
def test_logits_of_another_shape_are_refused(tmp_path, logits):
    with pytest.raises(CheckpointError, match="must give logits of the same shape"):
        compare(a_model(), a_model(), [OutsideLogits(logits, "a program")], where=tmp_path)


def test_models_of_different_vocabularies_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="must have 300 ids"):
        compare(a_model(), a_model(vocab_size=299), [], where=tmp_path)


def test_without_transformers_the_comparison_is_ours_and_says_so(tmp_path, their_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = convert(open_model(their_folder), tmp_path / "ours", to="native")
    assert (done.max_logit_difference, done.compared_with) == (
        0.0,
        "scratchlm alone: transformers not installed",
    )


@needs_transformers
@pytest.mark.parametrize(
    "changes", [{}, {"tie_embeddings": True, "qkv_bias": True}, LLAMA, {**LLAMA, "qk_norm": True}]
)
def test_a_folder_for_transformers_is_compared_with_transformers(tmp_path, tokenizer, changes):
    source = load_model(save_model(tmp_path / "ours", a_model(**changes), tokenizer))
    done = convert(source, tmp_path / "theirs", to="hf")
    assert "transformers" in done.compared_with
    assert done.max_logit_difference < 1e-4 * source.model(prompts(source.config)).abs().max()


@needs_transformers
def test_a_classifier_is_compared_at_its_last_token(tmp_path, tokenizer):
    model = a_model()
    replace_head(model, 3)
    task = {"kind": "classification", "classes": ["a", "b", "c"], "max_length": 24}
    source = load_model(save_model(tmp_path / "ours", model, tokenizer, task=task))
    assert n_classes(source.model) == 3
    assert "transformers" in convert(source, tmp_path / "theirs", to="hf").compared_with


@needs_transformers
@pytest.mark.parametrize("to", ["native", "hf", "gguf"])
def test_a_mistake_in_reading_their_settings_is_found(tmp_path, their_folder, to, monkeypatch):
    """Ours against ours would say "largest difference 0"."""
    read = huggingface.config_from_huggingface

    def wrong(values, **more):
        return read({**values, "rms_norm_eps": 0.1, "scratchlm_config": None}, **more)

    monkeypatch.setattr(huggingface, "config_from_huggingface", wrong)
    with pytest.raises(CheckpointError, match=r"as computed by transformers .*, got a difference of"):
        convert(open_model(their_folder), tmp_path / ("a.gguf" if to == "gguf" else "a"), to=to)
    assert not list(tmp_path.glob("a*"))


def convert_adapter(adapter, base, target, to) -> int:
    return main(["convert", str(adapter), str(target), "--to", to, "--base", str(base)])


@needs_transformers
@pytest.mark.parametrize("to", ["native", "hf", "peft"])
@pytest.mark.parametrize("base", ["theirs", "ours"])
def test_an_adapter_is_compared_with_peft(tmp_path, their_folder, an_adapter, tokenizer, to, base, capsys):
    if base == "ours":
        their_folder = save_model(tmp_path / "base", open_model(their_folder).model, tokenizer)
    assert convert_adapter(an_adapter, their_folder, tmp_path / "a", to) == 0
    assert "peft 0." in capsys.readouterr().out


@needs_transformers
@pytest.mark.parametrize("to", ["native", "hf", "peft"])
def test_a_mistake_in_an_adapters_scale_is_found(tmp_path, their_folder, an_adapter, to, monkeypatch, capsys):
    scale = peft_config.PeftConfig.scale
    monkeypatch.setattr(peft_config.PeftConfig, "scale", lambda self, name: 1.5 * scale(self, name))
    assert convert_adapter(an_adapter, their_folder, tmp_path / "a", to) == 3
    assert ", got a difference of" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
