"""Packed layers compute the same up to rounding, within the budget, and are replaced by the originals afterwards."""

import pytest
import torch
from torch import nn

from scratchlm.finetuning import packed_linear
from scratchlm.finetuning.heads import states_below
from scratchlm.finetuning.packed_linear import PackedLinear, can_pack, packed_linears
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.model.gelu import GELU
from tests.tolerances import assert_same_logits, rounding

needs_kernel = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN kernel for packed weights")
MANY = 1 << 30


def test_this_torch_has_the_kernel():
    """On x86 every version that we allow has it; without it the cache would fill as slowly as before."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch is built without oneDNN")
    assert can_pack()


def _size(values: torch.Tensor) -> float:
    return max(1.0, values.abs().max().item())


@needs_kernel
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 48), (2, 7, 48), (1, 512, 48)])
def test_the_result_is_that_of_the_plain_layer(has_bias, shape):
    torch.manual_seed(0)
    layers, x = nn.Sequential(nn.Linear(48, 32, bias=has_bias)), torch.randn(shape)
    with torch.no_grad():
        plain = layers(x)
        with packed_linears(layers, n_rows=512, budget_bytes=MANY) as n_packed:
            assert n_packed == 1
            torch.testing.assert_close(layers(x), plain, rtol=0, atol=rounding(_size(plain), n=48))
        assert layers(x).equal(plain)


@needs_kernel
@pytest.mark.parametrize("exact", [True, False])
def test_the_gelu_behind_a_layer_is_applied_once(exact):
    torch.manual_seed(0)
    layers, x = nn.Sequential(nn.Linear(48, 64), GELU(exact=exact), nn.Linear(64, 8)), 3 * torch.randn(5, 48)
    with torch.no_grad():
        plain = layers(x)
        with packed_linears(layers, n_rows=5, budget_bytes=MANY):
            torch.testing.assert_close(layers(x), plain, rtol=0, atol=rounding(_size(plain), n=48 + 64))
        assert layers(x).equal(plain)


@needs_kernel
@pytest.mark.parametrize("feed_forward", ["gelu", "gelu_exact", "swiglu"])
def test_frozen_blocks_compute_the_same(feed_forward):
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=50, context_length=16, emb_dim=32, n_heads=4, n_layers=3, drop_rate=0.0, qkv_bias=True,
        feed_forward=feed_forward,
    )  # fmt: skip
    model, ids = GPTModel(config).eval(), torch.randint(0, 50, (4, 12))
    with torch.no_grad():
        plain = states_below(model, ids, 2)
        with packed_linears(model.trf_blocks[:2], n_rows=48, budget_bytes=MANY) as n_packed:
            assert n_packed >= 2 * 6
            assert_same_logits(states_below(model, ids, 2), plain, config)


@needs_kernel
def test_the_layers_are_restored_also_after_an_error():
    layers = nn.Sequential(nn.Linear(4, 4), GELU(), nn.Linear(4, 4))
    originals = list(layers)

    def fail():
        with packed_linears(layers, n_rows=8, budget_bytes=MANY):
            assert [type(layer) for layer in layers] == [PackedLinear, nn.Identity, PackedLinear]
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert all(layer is original for layer, original in zip(layers, originals, strict=True))


@needs_kernel
def test_only_supported_layers_within_the_budget_are_packed():
    class OwnLinear(nn.Linear):
        """A layer with a forward pass of its own, as LoRA's."""

    layers = nn.Sequential(
        nn.Linear(8, 8).double(), OwnLinear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    )
    with packed_linears(layers, n_rows=8, budget_bytes=2 * 8 * 8 * 4) as n_packed:
        assert n_packed == 2
        assert [isinstance(layer, PackedLinear) for layer in layers] == [False, False, True, True, False]


def test_without_the_kernel_nothing_changes(monkeypatch):
    monkeypatch.setattr(packed_linear, "can_pack", lambda: False)
    layers, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    plain = layers(x)
    with packed_linears(layers, n_rows=8, budget_bytes=MANY) as n_packed:
        assert n_packed == 0
        assert layers(x).equal(plain)
