"""The context vectors that the book prints in chapter 3, and how the rungs of its ladder hang together."""

import pytest
import torch

from scratchlm.book import ch03
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model import MultiHeadAttention

# "Your journey starts with one step" as the book's three-dimensional embeddings
INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
BATCH = torch.stack([INPUTS, INPUTS])


def assert_prints(found: torch.Tensor, printed: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(printed), atol=5.1e-5, rtol=0)


def test_self_attention_v1_gives_the_books_vectors():
    torch.manual_seed(123)
    vectors = ch03.SelfAttention_v1(3, 2)(INPUTS)
    assert_prints(vectors[0], [0.2996, 0.8053])
    assert_prints(vectors[-1], [0.2990, 0.8040])


def test_self_attention_v2_gives_the_books_vectors():
    torch.manual_seed(789)
    vectors = ch03.SelfAttention_v2(3, 2)(INPUTS)
    assert_prints(vectors[0], [-0.0739, 0.0713])
    assert_prints(vectors[-1], [-0.0754, 0.0693])


def test_causal_attention_gives_the_books_vectors():
    torch.manual_seed(123)
    vectors = ch03.CausalAttention(3, 2, 6, 0.0)(BATCH)
    assert_prints(vectors[0, 0], [-0.4519, 0.2216])
    assert_prints(vectors[1, -1], [-0.5299, -0.1081])


def test_two_heads_side_by_side_give_the_books_vectors():
    torch.manual_seed(123)
    vectors = ch03.MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2)(BATCH)
    assert vectors.shape == (2, 6, 4)
    assert_prints(vectors[0, 0], [-0.4519, 0.2216, 0.4772, 0.1063])
    assert_prints(vectors[1, -1], [-0.5299, -0.1081, 0.5077, 0.3493])


def test_multi_head_attention_gives_the_books_vectors():
    torch.manual_seed(123)
    vectors = ch03.MultiHeadAttention(3, 2, 6, 0.0, num_heads=2)(BATCH)
    assert_prints(vectors[0, 0], [0.3190, 0.4858])
    assert_prints(vectors[1, -1], [0.2575, 0.4028])


def test_multi_head_attention_is_the_models_own():
    assert ch03.MultiHeadAttention is MultiHeadAttention


def test_v1_and_v2_compute_the_same_from_the_same_weights():
    torch.manual_seed(0)
    v1, v2 = ch03.SelfAttention_v1(3, 2), ch03.SelfAttention_v2(3, 2)
    for name in ("W_query", "W_key", "W_value"):
        setattr(v1, name, torch.nn.Parameter(getattr(v2, name).weight.T))
    torch.testing.assert_close(v1(INPUTS), v2(INPUTS))


def test_the_fused_variant_computes_what_the_models_attention_does():
    torch.manual_seed(0)
    ours = ch03.MultiHeadAttention(6, 4, 6, 0.0, num_heads=2, qkv_bias=True)
    fused = ch03.PyTorchMultiHeadAttention(6, 4, num_heads=2, qkv_bias=True)
    parts = (ours.W_query, ours.W_key, ours.W_value)
    fused.qkv.load_state_dict(
        {name: torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")}
    )
    fused.proj.load_state_dict(ours.out_proj.state_dict())
    x = torch.randn(2, 6, 6)
    torch.testing.assert_close(fused(x), ours(x))


@pytest.mark.parametrize("kind", [ch03.CausalAttention, ch03.MultiHeadAttentionWrapper])
def test_the_future_never_changes_what_came_before(kind):
    torch.manual_seed(0)
    extra = {"num_heads": 2} if kind is ch03.MultiHeadAttentionWrapper else {}
    attention, changed = kind(3, 2, 6, 0.0, **extra), BATCH.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(attention(BATCH)[:, :4], attention(changed)[:, :4])


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="at most 5 tokens, got 6"):
        ch03.CausalAttention(3, 2, 5, 0.0)(BATCH)
    for kind in (ch03.MultiHeadAttention, ch03.PyTorchMultiHeadAttention):
        with pytest.raises(ConfigError, match="divisors of 3"):
            kind(
                d_in=3,
                d_out=3,
                num_heads=2,
                **({"context_length": 6, "dropout": 0.0} if kind is ch03.MultiHeadAttention else {}),
            )


@pytest.mark.parametrize("kind", [ch03.SelfAttention_v1, ch03.SelfAttention_v2])
@pytest.mark.filterwarnings("error")
def test_a_batch_of_texts_is_each_text_for_itself(kind):
    layer, batch = kind(3, 2), torch.rand(2, 4, 3)
    torch.testing.assert_close(layer(batch), torch.stack([layer(text) for text in batch]))
