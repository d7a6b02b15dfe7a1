"""The model against references from outside: torch's own layers, and numbers that the book prints."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.model import (
    GELU,
    GPTConfig,
    GPTModel,
    LayerNorm,
    MultiHeadAttention,
    TransformerBlock,
    cross_entropy_sum,
)

E, H, T = 24, 4, 10


def x_batch() -> Tensor:
    return torch.randn(3, T, E, generator=torch.Generator().manual_seed(7))


def future() -> Tensor:
    """torch's convention: True where attention is forbidden."""
    return torch.ones(T, T, dtype=torch.bool).triu(1)


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        projections = (ours.W_query, ours.W_key, ours.W_value)
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


@pytest.mark.parametrize("kernels", ["torch", "manual"])
def test_layer_norm_is_torchs(kernels):
    ours, theirs = LayerNorm(E, kernels=kernels), nn.LayerNorm(E, eps=1e-5)
    with torch.no_grad():
        theirs.weight.copy_(ours.scale.normal_())
        theirs.bias.copy_(ours.shift.normal_())
    torch.testing.assert_close(ours(x_batch()), theirs(x_batch()))


@pytest.mark.parametrize("kernels", ["torch", "manual"])
def test_gelu_is_torchs_tanh_form(kernels):
    x = torch.linspace(-6, 6, 500)
    torch.testing.assert_close(GELU(kernels=kernels)(x), nn.GELU("tanh")(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "manual"])
def test_attention_and_its_weights_are_torchs(implementation):
    torch.manual_seed(0)
    ours = MultiHeadAttention(E, E, T, 0.0, H, qkv_bias=True, implementation=implementation)
    theirs = nn.MultiheadAttention(E, H, batch_first=True)
    copy_attention(ours, theirs)
    x = x_batch()
    mixed, weights = theirs(x, x, x, attn_mask=future(), average_attn_weights=False)
    torch.testing.assert_close(ours(x), mixed)
    torch.testing.assert_close(ours.attention_weights(x), weights)


@pytest.mark.parametrize("attention", ["sdpa", "manual"])
def test_a_block_is_torchs_pre_norm_layer(attention):
    torch.manual_seed(0)
    config = GPTConfig(
        emb_dim=E, n_heads=H, context_length=T, drop_rate=0.0, qkv_bias=True, attention=attention
    )
    ours = TransformerBlock(config)
    theirs = nn.TransformerEncoderLayer(
        E, H, 4 * E, 0.0, lambda x: F.gelu(x, approximate="tanh"), batch_first=True, norm_first=True
    )
    copy_attention(ours.att, theirs.self_attn)
    theirs.linear1.load_state_dict(ours.ff.layers[0].state_dict())
    theirs.linear2.load_state_dict(ours.ff.layers[2].state_dict())
    for norm, their_norm in ((ours.norm1, theirs.norm1), (ours.norm2, theirs.norm2)):
        with torch.no_grad():
            their_norm.weight.copy_(norm.scale.normal_())
            their_norm.bias.copy_(norm.shift.normal_())
    torch.testing.assert_close(ours(x_batch()), theirs(x_batch(), src_mask=future()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_mean_of_the_loss_sum_is_torchs_mean(label_smoothing):
    generator = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(6, 9, generator=generator), torch.tensor([0, 8, -100, 3, 3, -100])
    loss_sum, n_targets = cross_entropy_sum(logits, targets, label_smoothing=label_smoothing)
    expected = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss_sum / n_targets, expected)


@pytest.mark.parametrize("implementation", ["sdpa", "manual"])
def test_context_vectors_of_chapter_3(implementation):
    """Seed 123, the words "Your journey starts with one step"; first and last row as the book prints them."""
    embedded = [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64],
                [0.22, 0.58, 0.33], [0.77, 0.25, 0.10], [0.05, 0.80, 0.55]]  # fmt: skip
    torch.manual_seed(123)
    attention = MultiHeadAttention(3, 2, 6, 0.0, num_heads=2, implementation=implementation)
    vectors = attention(torch.tensor([embedded, embedded]))
    for row in range(2):
        torch.testing.assert_close(vectors[row, 0], torch.tensor([0.3190, 0.4858]), atol=5e-5, rtol=0)
        torch.testing.assert_close(vectors[row, 5], torch.tensor([0.2575, 0.4028]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("fused", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_untrained_gpt2_of_chapter_4_continues_as_in_the_book(fused):
    """Seed 123, 124M: "Hello, I am" goes on " Featureiman Byeswickattribute argue"."""
    torch.manual_seed(123)
    changes = {} if fused else {"attention": "manual", "kernels": "manual"}
    model = GPTModel({"n_layers": 12, **changes}).eval()
    ids = torch.tensor([[15496, 11, 314, 716]])
    with torch.no_grad():
        for _ in range(6):
            states = model.hidden_states(ids)  # (1, T, E)
            ids = torch.cat([ids, model.out_head(states[:, -1:]).argmax(dim=-1)], dim=1)
    assert ids[0, 4:].tolist() == [27018, 24086, 47843, 30961, 42348, 7267]
