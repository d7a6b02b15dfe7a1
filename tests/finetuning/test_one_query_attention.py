"""Computing one query position per row gives the same as computing all positions and taking that one."""

import dataclasses

import pytest
import torch

from scratchlm.finetuning.heads import states_below
from scratchlm.finetuning.one_query_attention import attend_one_query, gather_positions, run_blocks_at
from scratchlm.model import GPTConfig, GPTModel, MultiHeadAttention
from scratchlm.model.attention_context import AttentionContext, attention_context
from scratchlm.model.attention_mask import query_key_mask

LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False}
KINDS = {
    "gpt2": {},
    "written out": {"attention": "manual", "kernels": "manual"},
    "llama": LLAMA | {"n_kv_heads": 2},
    "qwen3": LLAMA | {"qk_norm": True},
    "not causal": {"is_causal": False},
}


@pytest.mark.parametrize("implementation", ["manual", "sdpa"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"n_kv_heads": 2}, {"qk_norm_eps": 1e-5}, {"is_causal": False}],
    ids=["plain", "groups", "norms", "not causal"],
)
@pytest.mark.parametrize("is_padded", [False, True])
def test_attention_for_one_query_equals_attention_for_all(implementation, changes, is_padded, generator):
    torch.manual_seed(3)
    attention = MultiHeadAttention(6, 8, 10, 0.0, 4, True, implementation=implementation, **changes)
    x = torch.randn(3, 7, 6, generator=generator)
    real = torch.tensor([[True] * 7, [True] * 5 + [False] * 2, [False] * 3 + [True] * 4])
    mask = query_key_mask(real, 7, is_causal=changes.get("is_causal", True)) if is_padded else None
    context, query_positions = AttentionContext(mask=mask), torch.tensor([6, 4, 3])
    results = []
    for is_one_query in (False, True):
        attention.zero_grad()
        leaf = x.clone().requires_grad_()
        if is_one_query:
            out = attend_one_query(attention, leaf, query_positions, context)
        else:
            out = gather_positions(attention(leaf, context), query_positions)
        out.square().sum().backward()
        gradients = [p.grad for p in (*attention.W_query.parameters(), *attention.W_value.parameters())]
        results.append((out, leaf.grad, attention.W_key.weight.grad, *gradients))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_blocks", [0, 2, 3])
@pytest.mark.parametrize("is_padded", [False, True])
def test_the_last_block_at_one_position_has_the_same_states_and_gradients(
    kind, n_blocks, is_padded, generator
):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=61, context_length=12, emb_dim=16, n_heads=4, n_layers=3, drop_rate=0.0)
    model = GPTModel(dataclasses.replace(config, **KINDS[kind])).eval()
    ids = torch.randint(0, 61, (3, 8), generator=generator)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [False] * 2 + [True] * 6])
    mask, query_positions = mask if is_padded else None, torch.tensor([7, 4, 5])
    results = []
    for is_one_query in (False, True):
        model.zero_grad()
        below = states_below(model, ids, n_blocks, attention_mask=mask)
        context = attention_context(below, model.config, attention_mask=mask)
        if is_one_query:
            states = run_blocks_at(model, below, query_positions, context, first=n_blocks)
        else:
            states = gather_positions(model.run_blocks(below, context, first=n_blocks), query_positions)
        states = model.final_norm(states)
        states.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([states, *gradients])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
