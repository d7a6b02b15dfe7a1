"""Our weights under the names of the book's classes."""

import pytest
import torch

from scratchlm.checkpoints.book import book_state_dict
from scratchlm.core.errors import ConfigError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.recipes.recipe import load_recipe
from tests.tiny import LLAMA_LAYERS

SIZES = {"vocab_size": 8, "context_length": 4, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
ROTARY = {**LLAMA_LAYERS, "n_kv_heads": 1}
ATTENTION = {f"att.{name}.weight" for name in ("W_query", "W_key", "W_value", "out_proj")}
GATED = {f"ff.fc{i}.weight" for i in (1, 2, 3)}


def make(**changes) -> GPTModel:
    torch.manual_seed(0)
    return GPTModel(GPTConfig(**(SIZES | changes)))


def in_block(state: dict[str, torch.Tensor], i: int) -> set[str]:
    prefix = f"trf_blocks.{i}."
    return {name.removeprefix(prefix) for name in state if name.startswith(prefix)}


def test_a_gpt2_has_its_masks_and_a_head_of_its_own():
    model = make(tie_embeddings=True, init="gpt2")
    state = book_state_dict(model)
    assert torch.equal(state["out_head.weight"], model.tok_emb.weight)
    assert state.keys() - model.state_dict().keys() == {f"trf_blocks.{i}.att.mask" for i in range(2)}
    # chapter 3 registers a buffer of the numbers 0 and 1, 1 where a token would look into the future
    assert state["trf_blocks.1.att.mask"].tolist() == [[float(j > i) for j in range(4)] for i in range(4)]


def test_a_llama_has_weights_in_its_norms_and_numbered_matrices():
    state = book_state_dict(make(**ROTARY))
    assert in_block(state, 1) == ATTENTION | GATED | {"norm1.weight", "norm2.weight"}
    assert {name for name in state if "trf" not in name} == {
        "tok_emb.weight", "final_norm.weight", "out_head.weight"
    }  # fmt: skip


def test_a_qwen_has_scales_and_norms_of_queries_and_keys():
    model = make(**ROTARY, norm_eps=1e-6, qk_norm=True, head_size=6)
    state = book_state_dict(model)
    norms = {f"{name}.scale" for name in ("norm1", "norm2", "att.q_norm", "att.k_norm")}
    assert in_block(state, 0) == ATTENTION | GATED | norms
    assert state["trf_blocks.0.ff.fc2.weight"].equal(model.trf_blocks[0].ff.up.weight)
    assert "final_norm.scale" in state


@pytest.mark.parametrize("recipe", ["quickstart", "shakespeare"])
def test_the_recipes_models_are_those_of_the_book(recipe):
    config = load_recipe(recipe)[1].model.resolve(vocab_size=300)
    assert "trf_blocks.3.att.q_norm.scale" in book_state_dict(GPTModel(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_eps": 1e-6}, "norm_eps=1e-05, got a model with 1e-06"),
        ({"ff_dim": 64}, "feed_forward_dim=32, got a model with 64"),
        ({"feed_forward": "gelu_exact"}, "gelu_exact"),
        ({**ROTARY, "qkv_bias": True}, "qkv_bias=False, got a model with True"),
        ({**ROTARY, "head_size": 6}, "head_dim=4, got a model with 6"),
        ({**ROTARY, "norm_eps": 1e-4}, "norm_eps=1e-05, got a model with 0.0001"),
        ({**ROTARY, "qk_norm": True}, "Qwen3Model has norm_eps=1e-06, got a model with 1e-05"),
    ],
    ids=str,
)
def test_a_model_that_the_book_cannot_build_is_an_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        book_state_dict(make(**changes))
