"""A model read in two parts, at one position, or with several texts in a row, gives what the whole gives."""

from __future__ import annotations

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
    "all see all": {"is_causal": False},
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
def test_trunk_and_the_rest_are_the_whole(model, rows, n_blocks, is_padded):
    ids, mask = rows[0], rows[1] if is_padded else None
    trunk = model.trunk_states(ids, n_blocks, attention_mask=mask)
    above = model.states_above(trunk, n_blocks, attention_mask=mask)
    torch.testing.assert_close(above, model.hidden_states(ids, attention_mask=mask), **TOLERANCE)


@pytest.mark.parametrize("n_blocks", [0, 2, 3])
@pytest.mark.parametrize("is_padded", [False, True])
def test_reading_one_position_gives_its_state_and_gradients(model, rows, n_blocks, is_padded):
    ids, mask = rows[0], rows[1] if is_padded else None
    read_at = torch.tensor([7, 4, 5])
    results = []
    for read in (None, read_at):
        model.zero_grad()
        trunk = model.trunk_states(ids, n_blocks, attention_mask=mask)
        states = model.states_above(trunk, n_blocks, attention_mask=mask, read_at=read)
        states = states[torch.arange(3), read_at][:, None] if read is None else states
        states.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([states, *gradients])
    torch.testing.assert_close(*results, **TOLERANCE)


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
def test_a_model_that_sees_the_future_has_no_cache(tiny_config):
    config = dataclasses.replace(tiny_config, is_causal=False)
    cache = KVCache(config, batch_size=1)
    with pytest.raises(DataError, match="see the future"):
        GPTModel(config).eval()(torch.tensor([[1]]), cache=cache)
