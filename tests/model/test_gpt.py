import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.model import CONFIGS, GPTConfig, GPTModel, KVCache, cross_entropy_sum


def random_ids(model: GPTModel, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, model.config.vocab_size, shape, generator=generator)


# What the model must never do, whatever its weights


def test_future_tokens_never_change_earlier_logits(tiny_model, generator):
    ids = random_ids(tiny_model, (2, 8), generator)
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % tiny_model.config.vocab_size
    torch.testing.assert_close(tiny_model(ids)[:, :5], tiny_model(changed)[:, :5])
    assert not torch.allclose(tiny_model(ids)[:, 5:], tiny_model(changed)[:, 5:])


def test_an_earlier_logit_has_no_gradient_to_later_tokens(tiny_model, generator):
    embedded = []
    tiny_model.drop_emb.register_forward_hook(
        lambda _m, _i, out: (out.retain_grad(), embedded.append(out))[0]
    )
    tiny_model(random_ids(tiny_model, (1, 8), generator))[0, 3].square().sum().backward()
    reach = embedded[0].grad[0].abs().sum(dim=-1)
    assert (reach[:4] > 0).all()
    assert (reach[4:] == 0).all()


def test_the_order_of_rows_in_a_batch_does_not_matter(tiny_model, generator):
    ids = random_ids(tiny_model, (5, 7), generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(tiny_model(ids[order]), tiny_model(ids)[order])


def test_a_row_does_not_see_its_neighbours(tiny_model, generator):
    ids = random_ids(tiny_model, (3, 7), generator)
    torch.testing.assert_close(tiny_model(ids[1:2]), tiny_model(ids)[1:2])


def test_the_order_of_tokens_matters(tiny_model):
    there, back = tiny_model(torch.tensor([[1, 2, 3]])), tiny_model(torch.tensor([[2, 1, 3]]))
    assert not torch.allclose(there[:, -1], back[:, -1])


# Padding


@pytest.mark.parametrize("attention", ["sdpa", "manual"])
@pytest.mark.parametrize(("n_left", "n_right"), [(0, 4), (4, 0), (2, 3)])
def test_padding_on_either_side_changes_nothing(tiny_config, generator, attention, n_left, n_right):
    torch.manual_seed(0)
    model = GPTModel(dataclasses.replace(tiny_config, attention=attention)).eval()
    ids = random_ids(model, (2, 5), generator)
    padding = [random_ids(model, (2, n), generator) for n in (n_left, n_right)]
    padded = torch.cat([padding[0], ids, padding[1]], dim=1)
    mask = torch.zeros(padded.shape, dtype=torch.bool)
    mask[:, n_left : n_left + 5] = True
    logits = model(padded, attention_mask=mask)
    torch.testing.assert_close(logits[:, n_left : n_left + 5], model(ids))
    assert logits.isfinite().all()


def test_rows_padded_by_different_amounts_each_get_their_own_logits(tiny_model, generator):
    ids = random_ids(tiny_model, (3, 6), generator)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])  # integers are fine
    logits = tiny_model(ids, attention_mask=mask)
    for row in range(3):
        real = mask[row].bool()
        torch.testing.assert_close(logits[row, real], tiny_model(ids[row, real][None])[0])


def test_a_row_of_nothing_but_padding_gives_numbers_and_gradients(tiny_model):
    logits = tiny_model(
        torch.zeros(2, 4, dtype=torch.long), attention_mask=torch.tensor([[True] * 4, [False] * 4])
    )
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in tiny_model.parameters() if p.grad is not None)


def test_a_mask_without_padding_changes_nothing(tiny_model, generator):
    ids = random_ids(tiny_model, (2, 6), generator)
    torch.testing.assert_close(tiny_model(ids, attention_mask=torch.ones_like(ids)), tiny_model(ids))


# Cache


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reading_in_any_pieces_with_a_cache_equals_reading_at_once(data):
    torch.manual_seed(0)
    attention = data.draw(st.sampled_from(["sdpa", "manual"]))
    model = GPTModel(
        GPTConfig(vocab_size=31, context_length=9, emb_dim=8, n_heads=2, n_layers=2, attention=attention)
    ).eval()
    n_tokens = data.draw(st.integers(1, 9))
    ids = torch.tensor(data.draw(st.lists(st.lists(st.integers(0, 30), min_size=n_tokens, max_size=n_tokens),
                                          min_size=1, max_size=3)))  # fmt: skip
    n_padding = data.draw(st.lists(st.integers(0, n_tokens - 1), min_size=len(ids), max_size=len(ids)))
    mask = torch.arange(n_tokens) >= torch.tensor(n_padding)[:, None] if any(n_padding) else None
    cache, start, pieces = KVCache(model.config, len(ids), capacity=n_tokens), 0, []
    with torch.no_grad():
        whole = model(ids, attention_mask=mask)
        while start < n_tokens:
            end = data.draw(st.integers(start + 1, n_tokens))
            seen = None if mask is None else mask[:, :end]
            pieces.append(model(ids[:, start:end], attention_mask=seen, cache=cache))
            start = end
    real = torch.ones(ids.shape, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(torch.cat(pieces, dim=1)[real], whole[real])
    assert cache.length == n_tokens


# Gradients


@pytest.mark.parametrize(("attention", "kernels"), [("sdpa", "torch"), ("manual", "manual")])
def test_gradients_agree_with_finite_differences(attention, kernels):
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=5, context_length=3, emb_dim=4, n_heads=2, n_layers=1, drop_rate=0.0, qkv_bias=True,
        attention=attention, kernels=kernels,
    )  # fmt: skip
    model = GPTModel(config).double()
    ids, targets = torch.tensor([[1, 4, 2]]), torch.tensor([[4, -100, 0]])
    names = [name for name, _ in model.named_parameters()]

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (ids,))
        return cross_entropy_sum(logits, targets, label_smoothing=0.1)[0]

    values = tuple(p.detach().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(loss, values)


def test_every_parameter_learns(tiny_model, generator):
    ids = random_ids(tiny_model, (2, 12), generator)
    cross_entropy_sum(tiny_model(ids), ids)[0].backward()
    silent = [name for name, p in tiny_model.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias on the keys moves all scores of a query alike, so the softmax cancels it
    assert [name for name in silent if not name.endswith("W_key.bias")] == []


# Variants that must agree


@pytest.mark.parametrize("kernels", ["torch", "manual"])
def test_every_way_of_computing_gives_the_same_logits(tiny_config, tiny_model, generator, kernels):
    ids = random_ids(tiny_model, (2, 12), generator)
    other = GPTModel(dataclasses.replace(tiny_config, attention="manual", kernels=kernels)).eval()
    other.load_state_dict(tiny_model.state_dict())
    torch.testing.assert_close(other(ids), tiny_model(ids), rtol=1e-5, atol=1e-5)


def test_logits_are_the_head_on_the_hidden_states(tiny_model, generator):
    ids = random_ids(tiny_model, (2, 4), generator)
    states = tiny_model.hidden_states(ids)
    assert states.shape == (2, 4, 16)
    assert torch.equal(tiny_model.out_head(states), tiny_model(ids))


# Initialisation and parameters


def test_names_are_the_books():
    config = GPTConfig(vocab_size=7, context_length=4, emb_dim=4, n_heads=2, n_layers=1, qkv_bias=True)
    assert list(GPTModel(config).state_dict()) == [
        "tok_emb.weight", "pos_emb.weight",
        "trf_blocks.0.att.W_query.weight", "trf_blocks.0.att.W_query.bias",
        "trf_blocks.0.att.W_key.weight", "trf_blocks.0.att.W_key.bias",
        "trf_blocks.0.att.W_value.weight", "trf_blocks.0.att.W_value.bias",
        "trf_blocks.0.att.out_proj.weight", "trf_blocks.0.att.out_proj.bias",
        "trf_blocks.0.ff.layers.0.weight", "trf_blocks.0.ff.layers.0.bias",
        "trf_blocks.0.ff.layers.2.weight", "trf_blocks.0.ff.layers.2.bias",
        "trf_blocks.0.norm1.scale", "trf_blocks.0.norm1.shift",
        "trf_blocks.0.norm2.scale", "trf_blocks.0.norm2.shift",
        "final_norm.scale", "final_norm.shift", "out_head.weight",
    ]  # fmt: skip


def test_weights_are_drawn_in_the_books_order(tiny_config):
    """The book's seed gives the book's weights only if every module is made when the book makes it."""
    torch.manual_seed(123)
    model = GPTModel(dataclasses.replace(tiny_config, n_layers=1, qkv_bias=False))
    torch.manual_seed(123)
    by_hand = [nn.Embedding(61, 16).weight, nn.Embedding(12, 16).weight]
    by_hand += [nn.Linear(16, 16, bias=False).weight for _ in range(3)]
    for layer in (nn.Linear(16, 16), nn.Linear(16, 64), nn.Linear(64, 16)):
        by_hand += [layer.weight, layer.bias]
    by_hand.append(nn.Linear(16, 61, bias=False).weight)
    drawn = [p for name, p in model.named_parameters() if "norm" not in name]
    assert all(torch.equal(a, b) for a, b in zip(drawn, by_hand, strict=True))


def test_gpt2_initialisation_has_its_spreads():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=500, context_length=64, emb_dim=64, n_heads=4, n_layers=8, qkv_bias=True)
    model = GPTModel(dataclasses.replace(config, init="gpt2"))
    for name, p in model.named_parameters():
        if name.endswith("bias") or name.endswith("shift"):
            assert p.abs().max() == 0, name
        elif name.endswith("scale"):
            assert (p == 1).all(), name
        else:
            adds_to_stream = name.endswith(("out_proj.weight", "layers.2.weight"))
            expected = 0.02 / math.sqrt(16) if adds_to_stream else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name


def test_an_untrained_gpt2_guesses_evenly(generator):
    torch.manual_seed(0)
    model = GPTModel(
        GPTConfig(vocab_size=100, context_length=16, emb_dim=32, n_heads=2, n_layers=2, init="gpt2")
    )
    ids = random_ids(model, (4, 16), generator)
    loss_sum, n_targets = cross_entropy_sum(model.eval()(ids), ids)
    assert loss_sum.item() / n_targets == pytest.approx(math.log(100), abs=0.05)


@pytest.mark.parametrize(
    ("name", "changes", "n_untied", "n_tied"),
    [  # the book, chapter 4, and its companion code; the last row is what llm.c prints for GPT-2's weights
        ("gpt2-small", {}, 163_009_536, 124_412_160),
        ("gpt2-medium", {}, 406_212_608, 354_749_440),
        ("gpt2-large", {}, 838_220_800, 773_891_840),
        ("gpt2-xl", {}, 1_637_792_000, 1_557_380_800),
        ("gpt2-small", {"qkv_bias": True}, 163_037_184, 124_439_808),
    ],
)
def test_parameter_counts_are_the_published_ones(name, changes, n_untied, n_tied):
    with torch.device("meta"):
        untied = GPTModel(dataclasses.replace(CONFIGS[name], **changes))
        tied = GPTModel(dataclasses.replace(CONFIGS[name], tie_embeddings=True, **changes))
    assert (untied.n_parameters(), tied.n_parameters()) == (n_untied, n_tied)


def test_frozen_parameters_can_be_left_out_of_the_count(tiny_model):
    everything = tiny_model.n_parameters()
    tiny_model.pos_emb.weight.requires_grad_(False)
    assert tiny_model.n_parameters(trainable_only=True) == everything - 12 * 16
    assert tiny_model.n_parameters() == everything


# Tied embeddings


@pytest.fixture
def tied_config(tiny_config) -> GPTConfig:
    return dataclasses.replace(tiny_config, tie_embeddings=True, init="gpt2")


def test_a_tied_head_is_the_embedding_and_both_uses_train_it(tied_config, generator):
    torch.manual_seed(0)
    model = GPTModel(tied_config)
    assert model.out_head.weight is model.tok_emb.weight
    assert model.tok_emb.weight.std().item() == pytest.approx(0.02, rel=0.1)
    cross_entropy_sum(model(torch.tensor([[1, 2]])), torch.tensor([[2, 3]]))[0].backward()
    grad = model.tok_emb.weight.grad
    assert grad is not None
    assert grad[40].abs().sum() > 0  # token 40 was never read, only predicted


def test_tied_weights_stay_tied_through_loading(tied_config):
    torch.manual_seed(1)
    saved = GPTModel(tied_config).state_dict()
    assert torch.equal(saved["out_head.weight"], saved["tok_emb.weight"])
    once = {name: value for name, value in saved.items() if name != "out_head.weight"}
    for file, assign in ((saved, False), (saved, True), (once, False), (once, True)):
        model = GPTModel(tied_config)
        model.load_state_dict(file, assign=assign)
        assert model.out_head.weight is model.tok_emb.weight
        assert torch.equal(model.out_head.weight, saved["tok_emb.weight"])


def test_a_tied_model_refuses_a_file_with_two_heads(tied_config, tiny_model):
    with pytest.raises(RuntimeError, match="tie_embeddings=False"):
        GPTModel(tied_config).load_state_dict(tiny_model.state_dict())


def test_a_tied_model_without_embedding_weights_is_refused(tied_config):
    saved = GPTModel(tied_config).state_dict()
    with pytest.raises(RuntimeError, match=r"tok_emb\.weight"):
        GPTModel(tied_config).load_state_dict({k: v for k, v in saved.items() if k != "tok_emb.weight"})


def test_a_head_for_another_purpose_is_not_tied_by_loading(tied_config):
    model = GPTModel(tied_config)
    model.out_head = nn.Linear(16, 2)  # a classifier's
    head = model.out_head.weight
    model.load_state_dict(model.state_dict())
    assert model.out_head.weight is head


# Files of others


def test_the_books_files_load_with_their_masks(tiny_model, tiny_config):
    theirs = tiny_model.state_dict()
    for i in range(tiny_config.n_layers):
        theirs[f"trf_blocks.{i}.att.mask"] = torch.ones(12, 12).triu(1)
    model = GPTModel(tiny_config)
    model.load_state_dict(theirs)
    assert not any("mask" in name for name in model.state_dict())


# Errors


def test_too_many_tokens_is_an_error_with_both_counts(tiny_model):
    with pytest.raises(DataError, match=r"at most 12 tokens, got 13 \(0 cached and 13 new\)"):
        tiny_model(torch.zeros(1, 13, dtype=torch.long))
    cache = KVCache(tiny_model.config, 1)
    with torch.no_grad():
        tiny_model(torch.zeros(1, 10, dtype=torch.long), cache=cache)
        with pytest.raises(DataError, match=r"got 13 \(10 cached and 3 new\)"):
            tiny_model(torch.zeros(1, 3, dtype=torch.long), cache=cache)


@pytest.mark.parametrize("shape", [(4,), (1, 0), (0, 4), (1, 2, 3)])
def test_ids_of_another_shape_are_refused(tiny_model, shape):
    with pytest.raises(DataError, match=r"ids must be \(B, T\) and not empty"):
        tiny_model(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("bad", [-1, 61])
def test_ids_outside_the_vocabulary_are_named(tiny_model, bad):
    with pytest.raises(DataError, match=f"ids must be 0 to 60, got {min(bad, 3)} to {max(bad, 3)}"):
        tiny_model(torch.tensor([[3, bad]]))


def test_a_mask_that_forgets_the_cached_tokens_is_refused(tiny_model):
    cache = KVCache(tiny_model.config, 1)
    with torch.no_grad():
        tiny_model(torch.tensor([[1, 2]]), cache=cache)
        with pytest.raises(DataError, match=r"here \(1, 3\), got shape \(1, 1\)"):
            tiny_model(torch.tensor([[3]]), cache=cache, attention_mask=torch.tensor([[True]]))


def test_a_bad_dictionary_is_a_config_error():
    with pytest.raises(ConfigError, match="did you mean 'emb_dim'"):
        GPTModel({"emd_dim": 8})
