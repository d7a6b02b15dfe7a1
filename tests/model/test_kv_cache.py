import pytest
import torch

from scratchlm.core.errors import DataError
from scratchlm.model import KVCache


@pytest.fixture
def two_texts(generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of two texts of different lengths."""
    ids = torch.randint(0, 61, (2, 9), generator=generator)
    return ids[:1], ids[1:, :6]


@torch.no_grad()
def test_texts_of_different_lengths_grow_together(tiny_model, two_texts):
    long, short = two_texts
    cache = KVCache(tiny_model.config, n_slots=4)
    tiny_model(long[:, :7], cache=cache.rows([2]))
    tiny_model(short[:, :4], cache=cache.rows([0]))
    assert cache.lengths == [4, 0, 7, 0]
    new = torch.cat([short[:, 4:6], long[:, 7:]])
    logits = tiny_model(new, cache=cache.rows([0, 2]))  # slots with a gap between them
    torch.testing.assert_close(logits[:1], tiny_model(short)[:, 4:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits[1:], tiny_model(long)[:, 7:], rtol=1e-5, atol=1e-5)
    assert cache.lengths == [6, 0, 9, 0]


@torch.no_grad()
def test_neighbouring_slots_are_read_without_a_copy(tiny_model, two_texts):
    cache = KVCache(tiny_model.config, n_slots=3)
    tiny_model(two_texts[0], cache=cache.rows([1]))
    rows = cache.rows([1, 2]).layer(0)
    keys, _ = rows.append(torch.ones(2, 4, 1, 4), torch.ones(2, 4, 1, 4))
    assert cache.keys is not None
    assert keys.data_ptr() == cache.keys[0, 1].data_ptr()


@torch.no_grad()
def test_memory_has_the_number_type_of_the_keys(tiny_model):
    cache = KVCache(tiny_model.config, n_slots=3, capacity=5)
    assert cache.size_bytes == 0
    tiny_model.bfloat16()(torch.tensor([[1]]), cache=cache.rows([0]))
    assert cache.size_bytes == 2 * 2 * (3 * 4 * 5 * 4) * 2  # layers, keys and values, numbers, bytes


def test_more_than_it_was_made_for_is_an_error_that_names_both_sizes(tiny_model):
    cache = KVCache(tiny_model.config, n_slots=1, capacity=2)
    with pytest.raises(DataError, match=r"room for 2 tokens of 1 rows, got 3 tokens of 1 rows"):
        tiny_model(torch.tensor([[1, 2, 3]]), cache=cache)
    with pytest.raises(DataError, match=r"room for 2 tokens of 1 rows, got 1 tokens of 2 rows"):
        tiny_model(torch.tensor([[1], [2]]), cache=cache)


def test_an_empty_cache_is_refused(tiny_config):
    with pytest.raises(DataError, match="n_slots=0"):
        KVCache(tiny_config, n_slots=0)


def test_its_capacity_is_the_context_length_unless_given(tiny_config):
    assert KVCache(tiny_config, n_slots=1).capacity == tiny_config.context_length


@torch.no_grad()
def test_cropping_forgets_the_end_and_reading_goes_on_from_there(tiny_model):
    ids = torch.tensor([[5, 6, 7, 8]])
    cache = KVCache(tiny_model.config, n_slots=2)
    tiny_model(torch.tensor([[5, 6, 40, 41, 42]]), cache=cache.rows([1]))
    cache.crop(2, slots=[1])
    assert cache.lengths == [0, 2]
    torch.testing.assert_close(tiny_model(ids[:, 2:], cache=cache.rows([1])), tiny_model(ids)[:, 2:])


def test_cropping_cannot_make_it_longer(tiny_config):
    with pytest.raises(
        DataError, match="slot 0 of this cache holds 0 tokens and cannot be cropped to 3; choose 0 to 0"
    ):
        KVCache(tiny_config, n_slots=1).crop(3)


@torch.no_grad()
def test_a_fork_continues_the_same_beginning_on_its_own(tiny_model, two_texts):
    long, _ = two_texts
    cache = KVCache(tiny_model.config, n_slots=2)
    tiny_model(long[:, :5], cache=cache.rows([0]))
    cache.fork(0, 1, length=3)
    other = torch.tensor([[9, 8]])
    logits = tiny_model(other, cache=cache.rows([1]))
    torch.testing.assert_close(logits, tiny_model(torch.cat([long[:, :3], other], dim=1))[:, 3:])
    logits = tiny_model(long[:, 5:], cache=cache.rows([0]))
    torch.testing.assert_close(logits, tiny_model(long)[:, 5:])
