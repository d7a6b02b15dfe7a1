"""What is computed again in the backward pass is not kept, and changes no bit of the gradients."""

import dataclasses

import pytest
import torch

from scratchlm.model import gpt
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.model.recompute import recomputed
from tests.tolerances import rounding

CONFIG = GPTConfig(vocab_size=50, context_length=16, emb_dim=32, n_heads=4, n_layers=2, drop_rate=0.1)
LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "ff_dim": 48, "linear_bias": False}


def gradients(config, dtype, *, is_recomputed):
    torch.manual_seed(0)
    model = GPTModel(config).train()
    model.set_activation_checkpointing(False, recompute_cheap=is_recomputed)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
        loss = model(torch.arange(32).view(2, 16)).float().logsumexp(-1).sum()
    loss.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, {"kernels": "manual"}, LLAMA], ids=["gpt2", "manual", "llama"])
def test_a_models_gradients_are_the_same_to_the_last_bit(changes, dtype):
    config = dataclasses.replace(CONFIG, **changes)
    kept, again = (gradients(config, dtype, is_recomputed=on) for on in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def test_layers_that_share_the_input_compute_it_once_in_each_backward_pass():
    n_calls = 0

    def double():
        nonlocal n_calls
        n_calls += 1
        return 2 * x

    x = torch.randn(2, 3, 8, requires_grad=True)
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    with recomputed(result := 2 * x, double):
        total = sum(layer(result).sum() for layer in layers)
    for n_passes in (1, 2):
        total.backward(retain_graph=True)
        assert n_calls == n_passes
    expected = 2 * 2 * x.detach().sum((0, 1)).expand(8, 8)  # two passes over an input of 2 x
    torch.testing.assert_close(layers[0].weight.grad, expected, rtol=0, atol=rounding(20.0, n=12))


@pytest.mark.parametrize(
    ("limit_bytes", "is_recomputed", "n_times"), [(0, True, 1), (0, False, 0), (1 << 20, True, 0)]
)
def test_large_blocks_give_freed_memory_back_once_half_way(monkeypatch, limit_bytes, is_recomputed, n_times):
    calls = []
    monkeypatch.setattr(gpt, "LARGE_BLOCKS", limit_bytes)
    monkeypatch.setattr(gpt, "give_freed_memory_back", lambda: calls.append(1))
    found = gradients(CONFIG, torch.float32, is_recomputed=is_recomputed)
    assert len(calls) == n_times
    assert all(map(torch.equal, found, gradients(CONFIG, torch.float32, is_recomputed=False)))


def test_without_gradients_nothing_is_computed_again():
    with torch.no_grad(), recomputed(torch.ones(2), lambda: pytest.fail("called")):
        torch.nn.Linear(2, 2)(torch.ones(2))
