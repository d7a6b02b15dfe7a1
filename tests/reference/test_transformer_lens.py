"""Hook points and head contributions beside TransformerLens 2, on the same weights.

`pip install 'transformer-lens<4' --no-deps` and its small dependencies: it is not among the test extras, because it
pins NumPy 1 and pandas below 2.1.
"""

import pytest
import torch

from scratchlm.inspection.attribution import attribute_logits, part_names
from scratchlm.inspection.hooks import recorded
from tests.inspection.conftest import VARIANTS, varied

lens = pytest.importorskip("transformer_lens", reason="transformer-lens is not installed")
if "HookedTransformer" not in vars(lens):
    pytest.skip(
        "transformer-lens 4 has no HookedTransformer; install transformer-lens<4", allow_module_level=True
    )

IDS = torch.tensor([[3, 1, 4, 1, 5]])
WITHIN = {"rtol": 1e-4, "atol": 1e-5}  # float32; sums of at most 64 terms in another order


def hooked(model):
    """The same model in TransformerLens."""
    config = model.config
    is_llama = config.feed_forward == "swiglu"
    settings = {
        "n_layers": config.n_layers, "d_model": config.emb_dim, "n_ctx": config.context_length,
        "d_head": config.head_dim, "n_heads": config.n_heads, "d_vocab": config.vocab_size,
        "d_mlp": config.feed_forward_dim, "eps": config.norm_eps, "device": "cpu", "use_attn_result": True,
        "act_fn": "silu" if is_llama else "gelu_new", "gated_mlp": is_llama,
        "normalization_type": "RMS" if is_llama else "LN",
        "positional_embedding_type": "rotary" if is_llama else "standard",
    }  # fmt: skip
    if is_llama:
        settings |= {"rotary_dim": config.head_dim, "n_key_value_heads": config.n_kv_heads, "final_rms": True}
    theirs = lens.HookedTransformer(lens.HookedTransformerConfig(**settings))
    state = theirs.state_dict()
    ours = model.state_dict()

    def per_head(weight):
        return weight.unflatten(0, (-1, config.head_dim)).mT  # (H * D, E) -> (H, E, D)

    state["embed.W_E"] = ours["tok_emb.weight"]
    state["unembed.W_U"] = ours["out_head.weight"].T
    if not is_llama:
        state["pos_embed.W_pos"] = ours["pos_emb.weight"]
    norms = [("ln_final", "final_norm")]
    for i in range(config.n_layers):
        at, block = f"blocks.{i}", f"trf_blocks.{i}"
        norms += [(f"{at}.ln1", f"{block}.norm1"), (f"{at}.ln2", f"{block}.norm2")]
        for letter, name in (("Q", "query"), ("K", "key"), ("V", "value")):
            shared = "_" if is_llama and letter != "Q" else ""
            state[f"{at}.attn.{shared}W_{letter}"] = per_head(ours[f"{block}.att.W_{name}.weight"])
            bias = ours.get(f"{block}.att.W_{name}.bias")
            if bias is not None:
                state[f"{at}.attn.b_{letter}"] = bias.unflatten(0, (-1, config.head_dim))
        out = ours[f"{block}.att.out_proj.weight"]
        state[f"{at}.attn.W_O"] = out.T.unflatten(0, (-1, config.head_dim))
        if is_llama:
            for letters, name in (("W_gate", "gate"), ("W_in", "up"), ("W_out", "down")):
                state[f"{at}.mlp.{letters}"] = ours[f"{block}.ff.{name}.weight"].T
        else:
            state[f"{at}.attn.b_O"] = ours[f"{block}.att.out_proj.bias"]
            for letters, number in (("in", 0), ("out", 2)):
                state[f"{at}.mlp.W_{letters}"] = ours[f"{block}.ff.layers.{number}.weight"].T
                state[f"{at}.mlp.b_{letters}"] = ours[f"{block}.ff.layers.{number}.bias"]
    for name, norm in norms:
        state[f"{name}.w"] = ours[f"{norm}.scale"]
        if not is_llama:
            state[f"{name}.b"] = ours[f"{norm}.shift"]
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("variant", ["gpt2", "llama", "llama-untied"])
def test_every_hook_point_holds_the_same_values(variant):
    model = varied(VARIANTS[variant])
    logits, cache = hooked(model).run_with_cache(IDS)
    with torch.no_grad(), recorded(model) as values:
        torch.testing.assert_close(model(IDS), logits, **WITHIN)
    assert values.keys() <= cache.keys()
    for name, value in values.items():
        torch.testing.assert_close(value.expand_as(cache[name]), cache[name], **WITHIN, msg=name)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "llama-untied"])
def test_heads_contribute_as_much_to_a_logit(variant):
    model, number = varied(VARIANTS[variant]), 7
    theirs = hooked(model)
    _, cache = theirs.run_with_cache(IDS)
    stack = cache.stack_head_results(layer=-1, pos_slice=-1)  # (L * H, B, E)
    scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1) * theirs.ln_final.w
    expected = (scaled @ theirs.W_U[:, number]).reshape(2, 4)
    with torch.no_grad(), recorded(model, part_names(model)) as values:
        model(IDS)
    direction = torch.zeros(1, 5, model.config.emb_dim)
    direction[0, -1] = model.out_head.weight[number].detach()
    [parts] = attribute_logits(model, values, direction, torch.zeros(1))
    torch.testing.assert_close(torch.tensor(parts.heads), expected.detach(), **WITHIN)
