"""The same GPTModel, configured as one of the Llama family."""

import pytest
import torch

from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.gpt import GPTModel
from scratchlm.model.kv_cache import KVCache
from tests.tiny import LLAMA_LAYERS

LLAMA = {
    "vocab_size": 50,
    "context_length": 32,
    "emb_dim": 24,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.0,
    **LLAMA_LAYERS,
    "ff_dim": 40,
    "n_kv_heads": 2,
}
VARIANTS = {
    "llama": LLAMA,
    "llama 3": {**LLAMA, "rope_scaling": {"factor": 4.0, "original_context_length": 8}},
    "qwen 3": {**LLAMA, "qk_norm": True, "head_size": 16, "norm_eps": 1e-6},
    "exact gelu": {**LLAMA, "feed_forward": "gelu_exact", "linear_bias": True},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    torch.manual_seed(5)
    values = dict(VARIANTS[request.param])
    if "rope_scaling" in values:
        values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
    return GPTModel(GPTConfig(**values)).eval()


@pytest.fixture
def ids(generator):
    return torch.randint(0, 50, (2, 12), generator=generator)


def test_the_cache_changes_nothing(variant, ids):
    cache = KVCache(variant.config, n_slots=2)
    with torch.no_grad():
        whole = variant(ids)
        parts = [variant(ids[:, :5], cache=cache), variant(ids[:, 5:9], cache=cache)]
        parts += [variant(ids[:, i : i + 1], cache=cache) for i in range(9, 12)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_the_cache_holds_the_shared_heads_only(variant, ids):
    cache = KVCache(variant.config, n_slots=2)
    variant(ids, cache=cache)
    head_dim, n_kv_heads = variant.config.head_dim, variant.config.n_kv_heads
    assert (
        cache.size_bytes == 2 * 2 * 2 * n_kv_heads * 32 * head_dim * 4
    )  # K and V, 2 layers, 2 rows, float32


def test_padding_on_either_side_changes_nothing(variant, ids):
    with torch.no_grad():
        alone = variant(ids[:1, :7])
        for pad in ("left", "right"):
            row = torch.zeros(1, 12, dtype=torch.long)
            place = slice(5, 12) if pad == "left" else slice(0, 7)
            row[:, place] = ids[:1, :7]
            mask = torch.zeros(1, 12, dtype=torch.bool)
            mask[:, place] = True
            padded = variant(row, attention_mask=mask)[:, place]
            torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_written_out_attention_agrees_with_the_fused_one(variant, ids):
    for module in variant.modules():
        if hasattr(module, "implementation"):
            fused = variant(ids)
            module.implementation = "manual"
            torch.testing.assert_close(variant(ids), fused, atol=1e-5, rtol=1e-5)


def test_a_rotary_model_has_no_position_embedding(variant):
    assert not any("pos_emb" in name for name in variant.state_dict())


def test_it_learns_a_row_by_heart(variant, ids):
    optimizer = torch.optim.AdamW(variant.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(variant(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0]
