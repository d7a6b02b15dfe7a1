"""The package's cache with our models."""

import pytest
import torch

from scratchlm.book.kv_cache import gpt2, llama3, qwen3, utils
from scratchlm.book.kv_cache_batched.qwen3 import Qwen3Model as BatchedQwen3Model
from scratchlm.core.errors import DataError

SIZES = {"vocab_size": 50, "context_length": 600, "emb_dim": 16, "n_heads": 4, "n_layers": 2}
LLAMA = SIZES | {
    "hidden_dim": 24,
    "n_kv_groups": 2,
    "rope_base": 1e4,
    "rope_freq": None,
    "dtype": torch.float32,
}
MODELS = {
    "gpt2": (gpt2.GPTModel, SIZES | {"drop_rate": 0.0, "qkv_bias": False}),
    "llama3": (llama3.Llama3Model, LLAMA),
    "qwen3": (qwen3.Qwen3Model, LLAMA | {"head_dim": 6, "qk_norm": True}),
}


def make(kind: str) -> utils.ReadsWithCache:
    torch.manual_seed(0)
    model, cfg = MODELS[kind]
    return model(cfg).eval()


def a_text(n_rows: int, n_tokens: int) -> torch.Tensor:
    return torch.randint(0, 50, (n_rows, n_tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MODELS)
def test_reading_in_pieces_equals_reading_at_once(kind):
    model, ids, cache = make(kind), a_text(2, 9), utils.KVCache(n_layers=2)
    with torch.no_grad():
        pieces = [model(piece, use_cache=True, cache=cache) for piece in ids.split([4, 1, 1, 3], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids))
    keys, values = cache.get(1)
    assert keys.shape[:3] == values.shape[:3] == (2, {"gpt2": 4}.get(kind, 2), 9)
    assert len(cache.get_all()) == 2


def test_the_cache_grows_beyond_its_first_room():
    model, ids, cache = make("llama3"), a_text(1, utils.FIRST_CAPACITY + 3), utils.KVCache(2)
    with torch.no_grad():
        model(ids[:, :5], cache=cache)
        last = model(ids[:, 5:], cache=cache)[:, -1]
        torch.testing.assert_close(last, model(ids)[:, -1])


def test_more_tokens_than_the_context_are_an_error():
    with pytest.raises(DataError, match="600 tokens, got 601"):
        make("gpt2")(a_text(1, 601), cache=utils.KVCache(2))


def test_a_model_may_keep_a_cache_of_its_own_until_it_is_reset():
    model, ids = make("gpt2"), a_text(1, 5)
    with torch.no_grad():
        whole = model(ids)[:, -1]
        model(ids[:, :4], use_cache=True)
        torch.testing.assert_close(model(ids[:, 4:], use_cache=True)[:, -1], whole)
        model.reset_kv_cache()
        torch.testing.assert_close(model(ids, use_cache=True)[:, -1], whole)


def test_after_a_reset_nothing_is_remembered():
    model, cache = make("qwen3"), utils.KVCache(2)
    model(a_text(1, 3), cache=cache)
    cache.reset()
    assert cache.get_all() == [None, None]
    assert model(a_text(2, 3), cache=cache).shape == (2, 3, 50)


def test_a_model_of_one_s_own_may_keep_what_it_likes():
    cache = utils.KVCache(2)
    cache.update(1, "keys and values")
    assert cache.get_all() == [None, "keys and values"]


def test_the_batched_variant_takes_its_positions_as_well():
    assert BatchedQwen3Model is qwen3.Qwen3Model
    model, ids, cache = make("qwen3"), a_text(2, 4), utils.KVCache(n_layers=2, batch_size=2)
    model.reset_kv_cache(batch_size=2, device=ids.device)
    with torch.no_grad():
        model(ids[:, :3], cache=cache, start_pos=torch.zeros(2, dtype=torch.long))
        last = model(ids[:, 3:], cache=cache, start_pos=torch.full((2,), 3))
        torch.testing.assert_close(last[:, -1], model(ids)[:, -1])
