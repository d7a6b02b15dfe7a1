from __future__ import annotations

import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.model import KVCache
from scratchlm.model.kv_cache import LayerCache


def test_what_was_appended_comes_back_in_order(generator):
    cache = LayerCache(batch_size=2, capacity=5)
    keys, values = torch.randn(2, 2, 3, 5, 4, generator=generator)  # each (B, H, T, D)
    cache.append(keys[:, :, :3], values[:, :, :3])
    all_keys, all_values = cache.append(keys[:, :, 3:], values[:, :, 3:])
    assert torch.equal(all_keys, keys)
    assert torch.equal(all_values, values)


def test_appending_writes_into_the_memory_that_is_there():
    cache = LayerCache(batch_size=1, capacity=4)
    first, _ = cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    second, _ = cache.append(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert first.data_ptr() == second.data_ptr()


def test_memory_has_the_number_type_of_the_keys(tiny_config):
    cache = KVCache(tiny_config, batch_size=3, capacity=5)
    assert cache.size_bytes == 0
    for layer in cache.layers:
        keys = torch.ones(3, 4, 1, 4, dtype=torch.bfloat16)
        assert layer.append(keys, keys)[0].dtype == torch.bfloat16
    assert cache.size_bytes == 2 * 2 * (3 * 4 * 5 * 4) * 2  # layers, keys and values, numbers, bytes


def test_more_than_it_was_made_for_is_an_error_that_names_both_sizes(tiny_config):
    layer = KVCache(tiny_config, batch_size=1, capacity=2).layers[0]
    with pytest.raises(DataError, match=r"room for 2 tokens of 1 rows, got 3 tokens of 1 rows"):
        layer.append(torch.ones(1, 4, 3, 4), torch.ones(1, 4, 3, 4))
    with pytest.raises(DataError, match=r"room for 2 tokens of 1 rows, got 1 tokens of 2 rows"):
        layer.append(torch.ones(2, 4, 1, 4), torch.ones(2, 4, 1, 4))


def test_an_empty_cache_is_refused(tiny_config):
    with pytest.raises(DataError, match="batch_size=0"):
        KVCache(tiny_config, batch_size=0)


def test_its_capacity_is_the_context_length_unless_given(tiny_config):
    assert KVCache(tiny_config, batch_size=1).capacity == tiny_config.context_length


@torch.no_grad()
def test_cropping_forgets_the_end_and_reading_goes_on_from_there(tiny_model):
    ids = torch.tensor([[5, 6, 7, 8]])
    cache = KVCache(tiny_model.config, batch_size=1)
    tiny_model(torch.tensor([[5, 6, 40, 41, 42]]), cache=cache)
    cache.crop(2)
    assert cache.length == 2
    torch.testing.assert_close(tiny_model(ids[:, 2:], cache=cache), tiny_model(ids)[:, 2:])


def test_cropping_cannot_make_it_longer(tiny_config):
    with pytest.raises(DataError, match="holds 0 tokens and cannot be cropped to 3; choose 0 to 0"):
        KVCache(tiny_config, batch_size=1).crop(3)


@torch.no_grad()
def test_rows_can_be_dropped_reordered_and_repeated(tiny_model, generator):
    ids = torch.randint(0, 61, (3, 6), generator=generator)
    cache = KVCache(tiny_model.config, batch_size=3)
    tiny_model(ids[:, :5], cache=cache)
    cache.keep_rows([2, 0, 2])
    assert cache.batch_size == 3
    rows = ids[[2, 0, 2]]
    torch.testing.assert_close(tiny_model(rows[:, 5:], cache=cache), tiny_model(rows)[:, 5:])
