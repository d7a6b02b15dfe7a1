"""DoRA starts without effect, scales rows as in the paper's equation, and can be merged."""

import functools

import pytest
import torch
from torch import nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.dora import LinearWithDoRA, row_lengths
from scratchlm.finetuning.lora import lora_parameters, merge_lora, replace_linear_with_lora
from tests.tolerances import assert_same_logits

replace_linear_with_dora = functools.partial(replace_linear_with_lora, layer_type=LinearWithDoRA)

IDS = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])


def trained(has_bias: bool = True) -> LinearWithDoRA:
    torch.manual_seed(0)
    layer = LinearWithDoRA(nn.Linear(6, 5, bias=has_bias), rank=2, alpha=3)
    nn.init.normal_(layer.lora.B)
    with torch.no_grad():
        layer.magnitude.mul_(1 + torch.rand(5))
    return layer


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_output_is_the_papers_equation_5(has_bias):
    layer, x = trained(has_bias), torch.randn(4, 6)
    rows = layer.linear.weight + (layer.lora.scaling * layer.lora.A @ layer.lora.B).T
    weight = layer.magnitude[:, None] * rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.linear.bias))
    torch.testing.assert_close(row_lengths(nn.Linear(6, 5)).shape, torch.Size([5]))


def test_no_gradient_flows_through_the_rows_length():
    layer, x = trained(), torch.randn(4, 6)
    layer(x).sum().backward()
    found = layer.lora.B.grad.clone()
    stretch = (layer.magnitude / (layer.linear.weight + layer.lora.product()).norm(dim=1)).detach()
    layer.zero_grad()
    (stretch * layer.lora(x)).sum().backward()
    torch.testing.assert_close(found, layer.lora.B.grad)


def test_a_new_update_changes_nothing(tiny_model):
    tiny_model.eval()
    before = tiny_model(IDS)
    names = replace_linear_with_dora(tiny_model, 2, 2)
    assert len(names) == 19
    assert_same_logits(tiny_model(IDS), before, tiny_model.config)


def test_merging_keeps_what_the_model_computes(tiny_model):
    tiny_model.eval().requires_grad_(False)
    replace_linear_with_dora(tiny_model, 2, 2, targets=("trf_blocks.*",))
    torch.manual_seed(0)
    for parameter in lora_parameters(tiny_model):
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    expected = tiny_model(IDS)
    assert merge_lora(tiny_model) == 18
    assert_same_logits(tiny_model(IDS), expected, tiny_model.config)


def test_the_lengths_are_trained_beside_the_updates(tiny_model):
    tiny_model.requires_grad_(False)
    replace_linear_with_dora(tiny_model, 2, 2, targets=("W_query",))
    learning = {id(parameter) for parameter in tiny_model.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in lora_parameters(tiny_model)}
    assert tiny_model.n_parameters(trainable_only=True) == 3 * (16 * 2 + 2 * 16 + 16)


def test_a_layer_without_rows_is_refused():
    class Quantized(nn.Module):
        in_features, out_features = 3, 4

    with pytest.raises(ConfigError, match="got Quantized; use LoRA"):
        LinearWithDoRA(Quantized(), 2, 2)


def layer_with_a_zero_row() -> LinearWithDoRA:
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    with torch.no_grad():
        linear.weight[2] = 0.0
    return LinearWithDoRA(linear, rank=2, alpha=3)


def test_a_row_of_zeros_stays_one_at_first():
    layer, x = layer_with_a_zero_row(), torch.randn(4, 6)
    torch.testing.assert_close(layer(x), layer.linear(x))
    assert layer(x)[:, 2].equal(layer.linear.bias[2].expand(4))


def test_a_row_of_zeros_is_trained_like_the_others():
    layer, x = layer_with_a_zero_row(), torch.randn(64, 6)
    layer.linear.requires_grad_(False)
    wanted = nn.functional.linear(x, torch.randn(5, 6), layer.linear.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    errors = []
    for _ in range(150):
        error = (layer(x) - wanted)[:, 2].square().mean()
        optimizer.zero_grad()
        error.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


def test_rows_without_length_or_magnitude_are_merged():
    layer, x = layer_with_a_zero_row(), torch.randn(4, 6)
    with torch.no_grad():
        nn.init.normal_(layer.lora.B)
        layer.lora.B[:, 2] = 0.0  # the row stays zero
        layer.magnitude[3] = 0.0  # and this one is scaled to zero
    expected = layer(x)
    model = nn.Sequential(layer)
    assert merge_lora(model) == 1
    torch.testing.assert_close(model(x), expected)
    assert model[0].weight.isfinite().all()
