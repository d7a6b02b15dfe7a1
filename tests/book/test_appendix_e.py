"""The figures that the book prints in appendix E."""

import torch
from torch import nn

from scratchlm.book import appendix_e
from scratchlm.model import GPTConfig, GPTModel


def n_learning(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_classifier_learns_as_many_numbers_as_in_the_book():
    with torch.device("meta"):
        model = GPTModel(GPTConfig(qkv_bias=True, drop_rate=0.0))
        model.out_head = nn.Linear(768, 2)
        assert n_learning(model) == 124_441_346
        for parameter in model.parameters():
            parameter.requires_grad = False
        assert n_learning(model) == 0
        appendix_e.replace_linear_with_lora(model, rank=16, alpha=16)
    assert n_learning(model) == 2_666_528


def test_the_medium_model_learns_as_many_numbers_as_in_exercise_7_4():
    with torch.device("meta"):
        model = GPTModel(GPTConfig(emb_dim=1024, n_layers=24, n_heads=16, qkv_bias=True))
        assert n_learning(model) == 406_286_336
        model.requires_grad_(False)
        appendix_e.replace_linear_with_lora(model, rank=16, alpha=16)
    assert n_learning(model) == 7_898_384


def test_the_printed_books_scaling_is_a_switch():
    layer = appendix_e.LoRALayer(4, 3, 2, 6, scaling="alpha")
    nn.init.ones_(layer.B)
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x), 6 * (x @ layer.A @ layer.B))
    assert appendix_e.LoRALayer(4, 3, 2, 6).scaling == 3


def test_the_parts_have_the_books_names():
    linear = nn.Linear(4, 3)
    layer = appendix_e.LinearWithLoRA(linear, rank=2, alpha=4)
    assert layer.linear is linear
    assert set(layer.state_dict()) == {"linear.weight", "linear.bias", "lora.A", "lora.B"}
