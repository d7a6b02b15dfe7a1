"""LoRA starts at zero, is trained beside frozen weights, can be merged into them, and selects layers by name."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.lora import (
    EVERY_LINEAR,
    EVERY_LINEAR_IN_BLOCKS,
    LinearWithLoRA,
    LoRALayer,
    linear_widths,
    lora_parameters,
    merge_lora,
    merged_copy,
    replace_linear_with_lora,
    select_linear_layers,
)
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from tests.tolerances import assert_same_logits

IDS = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])


def make_model(**changes) -> GPTModel:
    sizes = {"vocab_size": 61, "context_length": 12, "emb_dim": 16, "n_heads": 4, "n_layers": 2}
    torch.manual_seed(0)
    return GPTModel(GPTConfig(**sizes, drop_rate=0.0, qkv_bias=True, **changes)).eval()


def with_trained_lora(model: GPTModel, **settings) -> GPTModel:
    """Updates whose B is no longer zero, large enough to change the logits clearly."""
    model.requires_grad_(False)
    replace_linear_with_lora(model, rank=4, alpha=8, **settings)
    for parameter in lora_parameters(model):
        nn.init.normal_(parameter, std=0.1)
    return model


def test_a_new_update_is_zero_and_changes_nothing():
    model = make_model()
    before = model(IDS)
    replace_linear_with_lora(model, rank=4, alpha=8)
    assert torch.equal(model(IDS), before)


def test_a_is_drawn_as_torch_draws_a_linear_weight():
    torch.manual_seed(3)
    layer = LoRALayer(6, 5, rank=2, alpha=1)
    torch.manual_seed(3)
    expected = nn.init.kaiming_uniform_(torch.empty(6, 2), a=math.sqrt(5))
    assert torch.equal(layer.A, expected)
    assert torch.equal(layer.B, torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("scaling", "factor"), [("alpha/rank", 2.0), ("alpha/sqrt(rank)", 4.0), ("alpha", 8.0)]
)
def test_the_update_is_scaled_by_the_chosen_rule(scaling, factor):
    layer = LoRALayer(6, 5, rank=4, alpha=8, scaling=scaling)
    nn.init.normal_(layer.B)
    x = torch.randn(3, 7, 6)
    torch.testing.assert_close(layer(x), factor * (x @ layer.A @ layer.B))
    torch.testing.assert_close(layer(x), x @ layer.product().mT)


def test_layers_get_updates_depth_first_in_the_models_order():
    model = make_model()
    torch.manual_seed(1)
    replace_linear_with_lora(model, rank=2, alpha=2)
    torch.manual_seed(1)
    first, last = model.trf_blocks[0].att.W_query, model.out_head
    shapes = [(m.linear.in_features, 2) for m in model.modules() if isinstance(m, LinearWithLoRA)]
    drawn = [nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5)) for shape in shapes]
    assert len(drawn) == 13
    assert torch.equal(first.lora.A, drawn[0])
    assert torch.equal(last.lora.A, drawn[-1])


def test_only_the_updates_of_a_frozen_model_are_trained():
    model = make_model()
    model.requires_grad_(False)
    replace_linear_with_lora(model, rank=2, alpha=2)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in learning} == {id(p) for p in lora_parameters(model)}
    before = model.trf_blocks[0].ff.layers[0].linear.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = model(IDS).logsumexp(-1).mean()
    loss.backward()
    optimizer.step()
    assert torch.equal(model.trf_blocks[0].ff.layers[0].linear.weight, before)
    assert model(IDS).logsumexp(-1).mean() < loss


@pytest.mark.parametrize("scaling", ["alpha/rank", "alpha"])
def test_a_merged_model_computes_the_same(scaling):
    model = with_trained_lora(make_model(), scaling=scaling)
    expected, plain = model(IDS), make_model()(IDS)
    assert (expected - plain).abs().max() > 0.1
    assert merge_lora(model) == 13
    assert not any(isinstance(module, LoRALayer) for module in model.modules())
    assert_same_logits(model(IDS), expected, model.config)
    assert model.state_dict().keys() == make_model().state_dict().keys()


def test_merging_leaves_the_embedding_of_a_tied_model_alone():
    model = make_model(tie_embeddings=True, init="gpt2")
    embedding = model.tok_emb.weight.clone()
    expected = with_trained_lora(model)(IDS)
    merge_lora(model)
    assert torch.equal(model.tok_emb.weight, embedding)
    assert_same_logits(model(IDS), expected, model.config)
    assert not model.config.tie_embeddings
    twin = GPTModel(model.config).eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(IDS), model(IDS))


def test_a_merged_layer_is_trainable_or_not_as_before():
    model = make_model()
    model.requires_grad_(False)
    model.final_norm.requires_grad_(True)
    replace_linear_with_lora(model, rank=2, alpha=2)
    merge_lora(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "final_norm.scale",
        "final_norm.shift",
    }


def test_a_model_without_lora_has_nothing_to_merge():
    model = make_model()
    assert merge_lora(model) == 0
    assert list(lora_parameters(model)) == []


def lora_layers(model: nn.Module) -> list[LinearWithLoRA]:
    return [module for module in model.modules() if isinstance(module, LinearWithLoRA)]


def test_a_merged_copy_leaves_the_model_with_its_updates():
    model = with_trained_lora(make_model())
    expected = model(IDS)
    copied = merged_copy(model)
    assert not lora_layers(copied)
    assert len(lora_layers(model)) == 13
    assert torch.equal(model(IDS), expected)
    assert_same_logits(copied(IDS), expected, model.config)


def test_only_the_target_layers_get_updates():
    model = make_model()
    names = replace_linear_with_lora(model, rank=2, alpha=2, targets=("W_query", "trf_blocks.1.att.W_value"))
    assert names == ["trf_blocks.0.att.W_query", "trf_blocks.1.att.W_query", "trf_blocks.1.att.W_value"]
    assert [name for name, module in model.named_modules() if isinstance(module, LinearWithLoRA)] == names


def test_a_target_that_matches_nothing_leaves_the_model_unchanged():
    model = make_model()
    with pytest.raises(ConfigError, match="did you mean 'W_query'"):
        replace_linear_with_lora(model, rank=2, alpha=2, targets=("W_key", "W_qeury"))
    assert not lora_layers(model)


def test_dropout_applies_to_the_updates_input_during_training_only():
    layer = LinearWithLoRA(nn.Linear(200, 3), rank=2, alpha=2, dropout=0.5)
    nn.init.normal_(layer.lora.B)
    x = torch.ones(1, 200)
    torch.manual_seed(4)
    trained = layer(x)
    torch.manual_seed(4)
    kept = nn.functional.dropout(x, 0.5)
    torch.testing.assert_close(
        trained, layer.linear(x) + layer.lora.scaling * (kept @ layer.lora.A @ layer.lora.B)
    )
    layer.eval()
    torch.testing.assert_close(layer(x), layer.linear(x) + x @ layer.lora.product().mT)


class EightBit(nn.Module):
    """A layer with integer weights and a scale, as in a quantized base."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("scale", scale.half())
        self.register_buffer("whole", (linear.weight.detach() / scale).round().to(torch.int8))

    def forward(self, x):
        return x @ (self.whole.float() * self.scale.float()).mT


def test_a_quantized_base_gets_updates_but_cannot_be_merged():
    model = make_model().requires_grad_(False)
    for block in model.trf_blocks:
        block.att.W_query = EightBit(block.att.W_query)
    plain = model(IDS)
    assert len(replace_linear_with_lora(model, rank=2, alpha=2, targets=("W_query",))) == 2
    assert torch.equal(model(IDS), plain)
    assert all(parameter.dtype == torch.float32 for parameter in lora_parameters(model))
    for parameter in lora_parameters(model):
        nn.init.normal_(parameter)
    model(IDS).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in lora_parameters(model))
    model.out_head = LinearWithLoRA(model.out_head, rank=2, alpha=2)
    with pytest.raises(ConfigError, match="got EightBit"):
        merge_lora(model)
    assert len(lora_layers(model)) == 3  # not one was merged


def test_updates_have_the_layers_dtype():
    layer = LinearWithLoRA(nn.Linear(4, 3).double(), rank=2, alpha=2)
    assert layer(torch.zeros(1, 4).double()).dtype == torch.float64


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        LoRALayer(4, 3, rank=0, alpha=1)
    with pytest.raises(ConfigError, match=r"below 1, got 1\.0"):
        LoRALayer(4, 3, rank=2, alpha=1, dropout=1.0)
    with pytest.raises(ConfigError, match="got ReLU"):
        LinearWithLoRA(nn.ReLU(), rank=2, alpha=1)
    with pytest.raises(ConfigError, match="got 'beta'"):
        LoRALayer(4, 3, rank=2, alpha=1, scaling="beta")
    with pytest.raises(ConfigError, match="has no linear layers"):
        replace_linear_with_lora(nn.ReLU(), rank=2, alpha=1)
    model = make_model()
    replace_linear_with_lora(model, rank=2, alpha=1)
    with pytest.raises(ConfigError, match="call merge_lora first"):
        replace_linear_with_lora(model, rank=2, alpha=1)


# --- targets


def names(model, *targets):
    return list(select_linear_layers(model, targets))


def every_name(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def test_the_default_takes_all_in_the_models_order(tiny_model):
    assert names(tiny_model, *EVERY_LINEAR) == every_name(tiny_model)
    assert names(tiny_model, *EVERY_LINEAR_IN_BLOCKS) == every_name(tiny_model)[:-1]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["W_query"], [f"trf_blocks.{i}.att.W_query" for i in range(3)]),
        (["ff.layers.2"], [f"trf_blocks.{i}.ff.layers.2" for i in range(3)]),
        (["trf_blocks.1.att.W_*"], [f"trf_blocks.1.att.W_{part}" for part in ("query", "key", "value")]),
        (["out_head", "trf_blocks.0.att.out_proj"], ["trf_blocks.0.att.out_proj", "out_head"]),
        ([r"re:.*\.[02]\.att\.W_value"], ["trf_blocks.0.att.W_value", "trf_blocks.2.att.W_value"]),
    ],
)
def test_targets_are_ends_of_names_globs_and_expressions(tiny_model, targets, expected):
    assert names(tiny_model, *targets) == expected


@given(st.sets(st.integers(0, 18), min_size=1))
def test_any_choice_of_full_names_gives_these_and_no_others(numbers):
    block = {"a": nn.Linear(1, 1), "b": nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))}
    model = nn.ModuleList([nn.ModuleDict(block) for _ in range(7)])
    known = list(select_linear_layers(model, EVERY_LINEAR))
    wanted = [known[number] for number in sorted(numbers)]
    assert names(model, *reversed(wanted)) == wanted


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ["W_query", "W_quary"],
            "target 'W_quary' matches no linear layer of the model; did you mean 'W_query'",
        ),
        (["query"], "target 'query' matches no"),  # an end of a name, but not of whole parts
        (["re:W_query"], "target 're:W_query' matches no"),  # the whole name must fit
        (["re:("], r"target 're:\(' is not a valid regular expression"),
        ([], "needs at least one target"),
    ],
)
def test_a_target_that_matches_nothing_is_an_error(tiny_model, targets, message):
    with pytest.raises(ConfigError, match=message):
        select_linear_layers(tiny_model, targets)


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ConfigError, match="has no linear layers; pass the whole model"):
        select_linear_layers(nn.Sequential(nn.ReLU()), EVERY_LINEAR)


def test_only_a_linear_layer_has_widths():
    assert linear_widths(nn.Linear(3, 5)) == (3, 5)
    with pytest.raises(ConfigError, match="got ReLU"):
        linear_widths(nn.ReLU())
