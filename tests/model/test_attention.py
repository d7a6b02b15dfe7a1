import pytest
import torch

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model import MultiHeadAttention
from scratchlm.model.attention_context import AttentionContext
from scratchlm.model.attention_mask import query_key_mask
from scratchlm.model.config import GPTConfig
from scratchlm.model.kv_cache import KVCache

IMPLEMENTATIONS = ("manual", "sdpa")


def attention_pair(dropout: float = 0.0) -> list[MultiHeadAttention]:
    """The same weights in both implementations, (d_in, d_out, H) = (6, 8, 2)."""
    pair = []
    for implementation in IMPLEMENTATIONS:
        torch.manual_seed(5)
        pair.append(MultiHeadAttention(6, 8, 10, dropout, 2, True, implementation=implementation))
    return pair


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_future_never_reaches_the_past(implementation, generator):
    attention = MultiHeadAttention(6, 8, 10, 0.0, 2, implementation=implementation)
    x = torch.randn(2, 9, 6, generator=generator)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = attention(x), attention(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_both_implementations_agree_in_value_and_gradient(generator):
    x = torch.randn(3, 7, 6, generator=generator)
    mask = torch.tensor([[True] * 7, [False] * 2 + [True] * 5, [True] * 4 + [False] * 3])
    for context in (None, AttentionContext(mask=query_key_mask(mask, 7))):
        outcomes = []
        for attention in attention_pair():
            leaf = x.clone().requires_grad_()
            out = attention(leaf, context)
            out.square().sum().backward()
            outcomes.append((out, leaf.grad, attention.W_query.weight.grad, attention.W_value.bias.grad))
        torch.testing.assert_close(*outcomes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1, 1), (4, 1, 1), (2, 3, 1), (1, 5)])
@torch.no_grad()
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(implementation, chunks, generator):
    attention = MultiHeadAttention(6, 8, 10, 0.0, 2, implementation=implementation)
    x = torch.randn(2, 6, 6, generator=generator)
    cache = KVCache(GPTConfig(context_length=6, emb_dim=8, n_heads=2, n_layers=1), n_slots=2)
    pieces = []
    for piece in x.split(chunks, dim=1):
        rows = cache.rows()
        pieces.append(attention(piece, cache=rows.layer(0)))
        rows.advance(piece.shape[1])
    torch.testing.assert_close(torch.cat(pieces, dim=1), attention(x))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_dropout_acts_in_training_only(implementation, generator):
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 8, 10, 0.5, 2, implementation=implementation)
    x = torch.randn(1, 9, 6, generator=generator)
    assert not torch.allclose(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_weights_sum_to_one_and_never_look_ahead(generator):
    attention = attention_pair()[1]
    weights = attention.attention_weights(torch.randn(2, 5, 6, generator=generator))
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 5))
    assert weights.triu(1).abs().max() == 0


def test_weights_times_values_are_what_forward_computes(generator):
    attention = attention_pair()[1]
    x = torch.randn(2, 5, 6, generator=generator)
    values = attention.W_value(x).view(2, 5, 2, 4).transpose(1, 2)
    mixed = attention.attention_weights(x) @ values
    torch.testing.assert_close(attention.out_proj(mixed.transpose(1, 2).flatten(2)), attention(x))


def test_without_causality_every_token_sees_every_real_one(generator):
    results = []
    x = torch.randn(2, 6, 6, generator=generator)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    for implementation in IMPLEMENTATIONS:
        torch.manual_seed(5)
        attention = MultiHeadAttention(6, 8, 10, 0.0, 2, implementation=implementation, is_causal=False)
        context = AttentionContext(mask=query_key_mask(mask, 6, is_causal=False))
        results.append([attention(x), attention(x, context)])
        assert torch.all(attention.attention_weights(x) > 0)
    torch.testing.assert_close(*results)
    with torch.no_grad():
        changed = x.clone()
        changed[:, 5] += 1
        assert not torch.allclose(attention(changed)[:, 0], attention(x)[:, 0])


def test_longer_than_the_context_is_an_error_with_both_counts():
    attention = MultiHeadAttention(6, 8, 10, 0.0, 2)
    with pytest.raises(DataError, match="at most 10 tokens, got 11"):
        attention(torch.zeros(1, 11, 6))
    with pytest.raises(DataError, match="at most 10 tokens, got 11"):
        attention.attention_weights(torch.zeros(1, 11, 6))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"d_out=8 and num_heads=3"):
        MultiHeadAttention(6, 8, 10, 0.0, 3)


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ConfigError, match="sdpa or manual, got 'flash'"):
        MultiHeadAttention(6, 8, 10, 0.0, 2, implementation="flash")


def test_a_saved_causal_mask_is_accepted_and_never_written():
    """The book registers its mask as a persistent buffer, so its files hold one."""
    attention = MultiHeadAttention(6, 8, 10, 0.0, 2)
    theirs = {**attention.state_dict(), "mask": torch.ones(4, 4).triu(1)}  # and of another context length
    attention.load_state_dict(theirs)
    assert "mask" in theirs
    assert list(attention.state_dict()) == [
        "W_query.weight",
        "W_key.weight",
        "W_value.weight",
        "out_proj.weight",
        "out_proj.bias",
    ]


def test_an_unknown_key_is_still_refused():
    attention = MultiHeadAttention(6, 8, 10, 0.0, 2)
    with pytest.raises(RuntimeError, match="maks"):
        attention.load_state_dict({**attention.state_dict(), "maks": torch.ones(1)})


def test_one_layer_of_gpt2_small_has_the_books_number_of_parameters():
    attention = MultiHeadAttention(768, 768, 1024, 0.0, 12)
    assert sum(p.numel() for p in attention.parameters()) == 2_360_064  # the book, chapter 4, exercise 4.1
