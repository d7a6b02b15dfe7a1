import pytest
import torch

from scratchlm.core.errors import ConfigError
from scratchlm.inspection.hooks import hook_points, recorded
from tests.inspection.conftest import VARIANTS, varied

IDS = torch.tensor([[3, 1, 4, 1, 5]])
BLOCK = (
    "hook_resid_pre ln1.hook_scale ln1.hook_normalized attn.hook_q attn.hook_k attn.hook_v attn.hook_pattern "
    "attn.hook_z hook_attn_out hook_resid_mid ln2.hook_scale ln2.hook_normalized mlp.hook_pre {}mlp.hook_post "
    "hook_mlp_out hook_resid_post"
)


@pytest.mark.parametrize(
    ("variant", "start", "gated"),
    [("gpt2", ["hook_embed", "hook_pos_embed"], ""), ("llama", ["hook_embed"], "mlp.hook_pre_linear ")],
)
def test_the_names_are_those_of_transformer_lens(variant, start, gated):
    """From `run_with_cache` of TransformerLens 2.18, which also has hook_attn_scores and rotated queries and keys."""
    blocks = [f"blocks.{i}.{name}" for i in range(2) for name in BLOCK.format(gated).split()]
    end = ["ln_final.hook_scale", "ln_final.hook_normalized"]
    assert list(hook_points(varied(VARIANTS[variant]))) == [*start, *blocks, *end]


def test_the_residual_stream_is_the_sum_of_what_is_recorded(any_model):
    with torch.no_grad(), recorded(any_model) as values:
        any_model(IDS)
    stream = values["hook_embed"] + values.get("hook_pos_embed", 0)
    for layer in range(2):
        name = f"blocks.{layer}"
        torch.testing.assert_close(values[f"{name}.hook_resid_pre"], stream)
        stream = stream + values[f"{name}.hook_attn_out"]
        torch.testing.assert_close(values[f"{name}.hook_resid_mid"], stream)
        stream = stream + values[f"{name}.hook_mlp_out"]
        torch.testing.assert_close(values[f"{name}.hook_resid_post"], stream)


def test_heads_mix_their_values_by_their_pattern(any_model):
    with torch.no_grad(), recorded(any_model) as values:
        any_model(IDS)
        for layer, block in enumerate(any_model.trf_blocks):
            at = f"blocks.{layer}.attn"
            spread = values[f"{at}.hook_v"].repeat_interleave(
                4 // block.att.n_kv_heads, dim=2
            )  # (B, T, H, D)
            mixed = torch.einsum("bhqk,bkhd->bqhd", values[f"{at}.hook_pattern"], spread)
            torch.testing.assert_close(mixed, values[f"{at}.hook_z"])
            out = block.att.out_proj(mixed.flatten(2))
            torch.testing.assert_close(out, values[f"blocks.{layer}.hook_attn_out"])


def test_norms_and_feed_forward_networks_are_what_the_formulas_give(any_model):
    with torch.no_grad(), recorded(any_model) as values:
        logits = any_model(IDS)
        last = values["blocks.1.hook_resid_post"]
        is_layer_norm = any_model.config.norm == "layer"
        centred = last - last.mean(-1, keepdim=True) if is_layer_norm else last
        scale = (centred.square().mean(-1, keepdim=True) + any_model.config.norm_eps).sqrt()
        torch.testing.assert_close(values["ln_final.hook_scale"], scale)
        states = centred / scale * any_model.final_norm.scale
        states = states + any_model.final_norm.shift if is_layer_norm else states
        torch.testing.assert_close(any_model.out_head(states), logits)
        normalized = states if is_layer_norm else centred / scale
        torch.testing.assert_close(values["ln_final.hook_normalized"], normalized)
        before, after = values["blocks.0.mlp.hook_pre"], values["blocks.0.mlp.hook_post"]
        if any_model.config.feed_forward == "swiglu":
            expected = torch.nn.functional.silu(before) * values["blocks.0.mlp.hook_pre_linear"]
        else:
            exact = any_model.config.feed_forward == "gelu_exact"
            expected = torch.nn.functional.gelu(before, approximate="none" if exact else "tanh")
        torch.testing.assert_close(after, expected)


def test_only_what_is_named_is_recorded_and_nothing_stays_behind(any_model):
    with torch.no_grad():
        expected = any_model(IDS)
        with recorded(any_model, ["hook_embed"]) as values:
            assert torch.equal(any_model(IDS), expected)
    assert list(values) == ["hook_embed"]
    assert not any(module._forward_hooks for module in any_model.modules())


def test_hooks_are_removed_after_an_error(tiny_model):
    with pytest.raises(RuntimeError, match="stop"), recorded(tiny_model):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_an_unknown_name_is_an_error_with_the_nearest(tiny_model):
    with pytest.raises(ConfigError, match=r"did you mean 'blocks\.0\.hook_mlp_out'"):
        recorded(tiny_model, ["blocks.0.hook_mlp_outs"]).__enter__()
