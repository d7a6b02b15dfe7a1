"""Several adapters on one base: each answers as a model with it alone, and the base stays the base."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.adapters import Adapters
from scratchlm.finetuning.dora import replace_linear_with_dora
from scratchlm.finetuning.heads import replace_head
from scratchlm.finetuning.lora import lora_parameters, replace_linear_with_lora
from scratchlm.finetuning.peft_adapter import export_peft
from tests.tolerances import assert_same_logits

IDS = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])
KINDS = {  # how each adapter was made
    "poet": (replace_linear_with_lora, {"targets": ("W_query", "W_value")}),
    "clerk": (replace_linear_with_lora, {"scaling": "alpha", "targets": ("trf_blocks.*",)}),
    "judge": (replace_linear_with_dora, {"targets": ("ff.layers.0", "out_proj")}),
}


@pytest.fixture
def alone(tiny_model, tmp_path):
    """The adapters' folders, and what a model with each of them alone computes."""
    expected = {}
    for number, (name, (replace, settings)) in enumerate(KINDS.items()):
        model = copy.deepcopy(tiny_model).eval()
        seed_everything(number)
        replace(model, 3, 2, **settings)
        for parameter in lora_parameters(model):
            nn.init.normal_(parameter, std=0.3)
        export_peft(tmp_path / name, model)
        expected[name] = model(IDS)
    return expected


@pytest.fixture
def adapters(tiny_model, alone, tmp_path):
    found = Adapters(tiny_model.eval())
    for name in alone:
        assert found.load(name, tmp_path / name) > 0
    return found


def test_each_answers_as_a_model_with_it_alone_in_any_order(adapters, alone, tiny_model):
    base = copy.deepcopy(tiny_model)(IDS)
    for name in ("judge", "poet", None, "clerk", "clerk", "poet", None, "judge"):
        with adapters.using(name) as model:
            expected = base if name is None else alone[name]
            assert_same_logits(model(IDS), expected, tiny_model.config)
        assert torch.equal(tiny_model(IDS), base)
    assert (alone["poet"] - base).abs().max() > 0.01


def test_without_an_adapter_the_model_is_the_base_itself(adapters, tiny_model):
    before = {name: parameter.data_ptr() for name, parameter in tiny_model.named_parameters()}
    for name in adapters.names:
        adapters.use(name)
        inside = {parameter.data_ptr() for parameter in tiny_model.parameters()}
        assert set(before.values()) <= inside  # around the same weights, none copied
    adapters.use(None)
    assert {name: parameter.data_ptr() for name, parameter in tiny_model.named_parameters()} == before


def test_blocks_nest_and_end_as_they_began_also_after_an_error(adapters):
    adapters.use("poet")

    def fail():
        raise ZeroDivisionError

    with adapters.using("judge"), adapters.using(None):
        assert adapters.active is None
    with pytest.raises(ZeroDivisionError), adapters.using("judge"):
        fail()
    assert adapters.active == "poet"


def test_loading_and_removing_leave_what_is_in_use(adapters, alone, tiny_model, tmp_path):
    adapters.use("poet")
    adapters.load("second poet", tmp_path / "poet")
    adapters.remove("clerk")
    assert (adapters.active, adapters.names) == ("poet", ["poet", "judge", "second poet"])
    assert_same_logits(tiny_model(IDS), alone["poet"], tiny_model.config)
    adapters.remove("poet")
    assert adapters.active is None


def test_corrections_follow_the_model_into_training_mode(adapters, tiny_model):
    tiny_model.train()
    adapters.use("clerk")
    assert all(module.training for module in tiny_model.modules())
    tiny_model.eval()
    with adapters.using("judge"):
        assert not any(module.training for module in tiny_model.modules())


def test_an_unknown_name_is_refused_with_the_nearest(adapters):
    adapters.use("poet")
    with pytest.raises(ConfigError, match="got 'jugde'; did you mean 'judge'"):
        adapters.use("jugde")
    with pytest.raises(ConfigError, match="got 'jugde'"):
        adapters.remove("jugde")
    with pytest.raises(ConfigError, match="must be new, got 'poet' again"):
        adapters.load("poet", "anywhere")
    assert adapters.active == "poet"


def test_an_adapter_of_another_base_is_refused_and_the_others_stay(adapters, alone, tiny_model, tmp_path):
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        other.tok_emb.weight.add_(1e-3)
    stranger = Adapters(other)
    adapters.use("judge")
    with pytest.raises(CheckpointError, match="load the base that the adapter was trained on"):
        stranger.load("poet", tmp_path / "poet")
    assert stranger.names == []
    assert_same_logits(tiny_model(IDS), alone["judge"], tiny_model.config)


def test_a_corrected_model_is_no_base(tiny_model):
    replace_linear_with_lora(tiny_model, 2, 2)
    with pytest.raises(ConfigError, match="should have no corrections, found some"):
        Adapters(tiny_model)


def test_a_classifiers_adapter_is_refused_and_the_base_keeps_its_head(adapters, tiny_model, tmp_path):
    """Its head would stay behind in the base, and all other adapters would score classes."""
    classifier = copy.deepcopy(tiny_model)
    replace_head(classifier, 3)
    replace_linear_with_lora(classifier.trf_blocks, 2, 2)
    export_peft(tmp_path / "classes", classifier)
    before = tiny_model(IDS)
    with pytest.raises(CheckpointError, match="replaces score, such as a classifier's with its own head"):
        adapters.load("classes", tmp_path / "classes")
    assert torch.equal(tiny_model(IDS), before)
    assert "classes" not in adapters.names
