"""A model run in two parts or with several texts in a row gives the same states as the whole."""

import dataclasses

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.model import GPTModel, KVCache

LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False}
KINDS = {
    "gpt2": {},
    "written out": {"attention": "manual", "kernels": "manual"},
    "llama": LLAMA | {"n_kv_heads": 2},
    "qwen3": LLAMA | {"qk_norm": True},
    "not causal": {"is_causal": False},
}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=KINDS)
def model(request, tiny_config) -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(dataclasses.replace(tiny_config, n_layers=3, **KINDS[request.param])).eval()


@pytest.fixture
def rows(generator):
    ids = torch.randint(0, 61, (3, 8), generator=generator)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [False] * 2 + [True] * 6])
    return ids, mask


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
@pytest.mark.parametrize("is_padded", [False, True])
@torch.no_grad()
def test_the_blocks_run_in_two_parts_are_the_whole(model, rows, n_blocks, is_padded):
    ids, mask = rows[0], rows[1] if is_padded else None
    x, context = model.embed(ids, attention_mask=mask)
    below = model.run_blocks(x, context, last=n_blocks)
    above = model.final_norm(model.run_blocks(below, context, first=n_blocks))
    torch.testing.assert_close(above, model.hidden_states(ids, attention_mask=mask), **TOLERANCE)


@torch.no_grad()
def test_without_its_head_the_model_returns_the_states_that_the_head_reads(model, rows):
    ids, mask = rows
    states = model(ids, attention_mask=mask, apply_head=False)
    assert torch.equal(states, model.hidden_states(ids, attention_mask=mask))
    assert torch.equal(model.out_head(states), model(ids, attention_mask=mask))


@torch.no_grad()
def test_positions_can_be_given_and_are_otherwise_those_of_the_mask(model, rows):
    ids, mask = rows
    expected = model(ids, attention_mask=mask)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    assert torch.equal(model(ids, attention_mask=mask, positions=positions), expected)
    assert torch.equal(model(ids, positions=torch.arange(8)), model(ids))
    assert not torch.allclose(model(ids, positions=torch.arange(8) * 2 % 12), model(ids))


@torch.no_grad()
def test_texts_packed_into_one_row_are_as_if_alone(model, generator):
    texts = [torch.randint(0, 61, (1, n), generator=generator) for n in (3, 5, 2)]
    padding = torch.zeros(1, 2, dtype=torch.long)
    ids = torch.cat([*texts, padding], dim=1)
    mask = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 0, 0]])
    packed = model(ids, attention_mask=mask)
    alone = torch.cat([model(text) for text in texts], dim=1)
    torch.testing.assert_close(packed[:, :10], alone, **TOLERANCE)


@torch.no_grad()
def test_a_model_that_is_not_causal_has_no_cache(tiny_config):
    config = dataclasses.replace(tiny_config, is_causal=False)
    cache = KVCache(config, n_slots=1)
    with pytest.raises(DataError, match="not causal reads whole texts only"):
        GPTModel(config).eval()(torch.tensor([[1]]), cache=cache)
