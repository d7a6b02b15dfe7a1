"""Weight files without a config: nanoGPT's, and those of the book's bonus chapters."""

import json
import math
import pickle
import re

import pytest
import torch
import torch.nn.functional as F

from scratchlm.checkpoints.open_model import open_model
from scratchlm.core.errors import CheckpointError, ScratchLMError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.tiny import LLAMA_LAYERS

N_TOKENS = 7
N_LAYERS, N_HEADS, WIDTH, CONTEXT = 2, 4, 16, 12
ARGS = {
    "n_layer": N_LAYERS,
    "n_head": N_HEADS,
    "n_embd": WIDTH,
    "block_size": CONTEXT,
    "vocab_size": N_TOKENS,
    "dropout": 0.1,
}
IDS = torch.arange(10)[None] % N_TOKENS  # (B, T)


def nanogpt_weights(*, has_bias: bool) -> dict[str, torch.Tensor]:
    """Weights as nanoGPT names and shapes them, drawn at random; its head is its embedding."""
    draw = torch.Generator().manual_seed(1)
    shapes = {"wte": (N_TOKENS, WIDTH), "wpe": (CONTEXT, WIDTH), "ln_f": (WIDTH,)}
    for i in range(N_LAYERS):
        shapes |= {f"h.{i}.ln_1": (WIDTH,), f"h.{i}.attn.c_attn": (3 * WIDTH, WIDTH)}
        shapes |= {f"h.{i}.attn.c_proj": (WIDTH, WIDTH), f"h.{i}.ln_2": (WIDTH,)}
        shapes |= {f"h.{i}.mlp.c_fc": (4 * WIDTH, WIDTH), f"h.{i}.mlp.c_proj": (WIDTH, 4 * WIDTH)}
    state = {f"transformer.{name}.weight": torch.randn(s, generator=draw) for name, s in shapes.items()}
    if has_bias:
        biased = {name: s for name, s in shapes.items() if name not in ("wte", "wpe")}
        state |= {f"transformer.{n}.bias": torch.randn(s[0], generator=draw) for n, s in biased.items()}
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def nanogpt_logits(state: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """nanoGPT's forward pass in torch's functions; its GELU is the exact one."""

    def layer(x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = state[f"transformer.{name}.weight"], state.get(f"transformer.{name}.bias")
        return F.layer_norm(x, (WIDTH,), weight, bias) if weight.dim() == 1 else F.linear(x, weight, bias)

    n_tokens = ids.shape[1]
    x = state["transformer.wte.weight"][ids] + state["transformer.wpe.weight"][:n_tokens]
    for i in range(N_LAYERS):
        parts = layer(layer(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(WIDTH, dim=2)
        q, k, v = (part.unflatten(2, (N_HEADS, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
        scores = (q @ k.mT / math.sqrt(WIDTH / N_HEADS)).masked_fill(
            torch.ones(n_tokens, n_tokens).triu(1).bool(), -math.inf
        )
        x = x + layer((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"h.{i}.attn.c_proj")
        x = x + layer(F.gelu(layer(layer(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")), f"h.{i}.mlp.c_proj")
    return layer(x, "ln_f") @ state["lm_head.weight"].T


def write_nanogpt(folder, *, has_bias=True, prefix="", **changes):
    state = nanogpt_weights(has_bias=has_bias)
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "model": {prefix + name: tensor for name, tensor in state.items()},
        "optimizer": {
            "state": {0: {"exp_avg": torch.ones(3)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}],
        },
        "model_args": ARGS | {"bias": has_bias},
        "iter_num": 10,
        "best_val_loss": torch.tensor(2.5),
        "config": {"dataset": "letters"},
    }
    torch.save(value | changes, folder / "ckpt.pt")
    return folder / "ckpt.pt", state


def write_meta(folder, characters="abcdefg"):
    folder.mkdir(parents=True, exist_ok=True)
    ids = {character: id_ for id_, character in enumerate(characters)}
    meta = {"vocab_size": len(ids), "itos": {id_: c for c, id_ in ids.items()}, "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def assert_logits(path, expected):
    """Both are float32; sums of 64 products of numbers near 1 differ by a few of the last of 24 bits."""
    with torch.no_grad():
        found = open_model(path).model(IDS)
    scale = expected.abs().max().item()
    torch.testing.assert_close(found, expected, atol=64 * 2**-24 * scale, rtol=0)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_nanogpts_checkpoint_computes_what_nanogpt_does(tmp_path, has_bias, prefix):
    path, state = write_nanogpt(tmp_path, has_bias=has_bias, prefix=prefix)
    write_meta(tmp_path)
    assert_logits(path, nanogpt_logits(state, IDS))


def test_a_bias_that_nanogpt_leaves_out_is_exactly_zero(tmp_path):
    path, _ = write_nanogpt(tmp_path, has_bias=False)
    write_meta(tmp_path)
    shifts = [
        p for name, p in open_model(path).model.named_parameters() if name.endswith((".shift", ".bias"))
    ]
    assert shifts
    assert not any(shift.any() for shift in shifts)


def test_a_character_tokenizer_is_found_beside_nanogpts_checkpoint(tmp_path):
    path, _ = write_nanogpt(tmp_path)
    write_meta(tmp_path)
    assert open_model(path).tokenizer.encode("badge") == [1, 0, 3, 6, 4]


def test_a_character_tokenizer_is_found_in_nanogpts_own_layout(tmp_path):
    path, _ = write_nanogpt(tmp_path / "out-letters")
    write_meta(tmp_path / "data" / "letters")
    assert open_model(path).tokenizer.decode([1, 0, 3]) == "bad"


@pytest.mark.parametrize("name", ["../letters", "", "a/b", 5, None, "\0"])
def test_a_data_set_with_the_name_of_a_path_is_not_looked_for(tmp_path, name):
    path, _ = write_nanogpt(tmp_path / "out", config={"dataset": name})
    write_meta(tmp_path / "letters")
    with pytest.raises(CheckpointError, match=r"no meta\.pkl of nanoGPT; put one of them beside the weights"):
        open_model(path)


@pytest.mark.parametrize("value", [None, 1, -1, 0, 1.5, "4", [4], {}, True, 10**30])
@pytest.mark.parametrize("name", ["n_head", "n_layer", "n_embd", "block_size", "vocab_size", "dropout"])
def test_a_wrong_value_in_model_args_is_our_error_or_read_from_the_shapes(tmp_path, name, value):
    path, state = write_nanogpt(tmp_path, model_args=ARGS | {name: value})
    write_meta(tmp_path)
    try:
        found = open_model(path).model(IDS)
    except ScratchLMError:
        return
    if name != "n_head":
        torch.testing.assert_close(found.detach(), nanogpt_logits(state, IDS))


@pytest.mark.parametrize("value", [1, "x", [1], 1.5, True])
def test_model_args_that_are_no_table_are_our_error(tmp_path, value):
    path, _ = write_nanogpt(tmp_path, model_args=value)
    with pytest.raises(CheckpointError, match="must hold model_args as a table"):
        open_model(path)


# ------------------------------------------------------------------ weights without settings

SIZES = {
    "vocab_size": 262,
    "context_length": 16,
    "emb_dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
}
LLAMA = {**SIZES, **LLAMA_LAYERS, "ff_dim": 20, "n_kv_heads": 1, "rope_base": 5e5}
QWEN = {**LLAMA, "qk_norm": True, "head_size": 8, "norm_eps": 1e-6, "rope_base": 1e6}
BOOK_WORDS = {"ff_dim": "hidden_dim", "n_kv_heads": "n_kv_groups", "head_size": "head_dim"}
BOOK_NAMES = {"gate": "fc1", "up": "fc2", "down": "fc3", "query_norm": "q_norm", "key_norm": "k_norm"}


@pytest.fixture
def folder(tmp_path):
    train_bpe(["the cat sat on the mat " * 20], 262).save(tmp_path / "tokenizer.json")
    return tmp_path


def book_state(model: GPTModel, *, norm: str) -> dict[str, torch.Tensor]:
    """The names of the book's Llama (nn.RMSNorm's `weight`) or Qwen 3 (its own `scale`), and Llama 2's buffers."""
    state = {
        ".".join(BOOK_NAMES.get(part, part) for part in name.split(".")): tensor
        for name, tensor in model.state_dict().items()
    }
    renamed = {
        re.sub(r"(norm1|norm2|final_norm)\.scale", rf"\1.{norm}", name): t for name, t in state.items()
    }
    return renamed | {
        "trf_blocks.0.att.mask": torch.ones(2, 2),
        "cos": torch.ones(2, 2),
        "sin": torch.ones(2, 2),
    }


def settings_that_the_message_asks_for(message: str, config: dict) -> dict:
    asked = json.loads(re.search(r"such as (\{.*\})", message)[1])
    return {name: config[name] for name in asked}


@pytest.mark.parametrize(("config", "norm"), [(LLAMA, "weight"), (QWEN, "scale")], ids=["Llama 3", "Qwen 3"])
@pytest.mark.parametrize("words", ["what the message asks for", "all", "the book's"])
def test_the_books_bonus_models_open_with_the_settings_that_the_message_asks_for(folder, config, norm, words):
    torch.manual_seed(3)
    model = GPTModel(GPTConfig(**config)).eval()
    torch.save(book_state(model, norm=norm), folder / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"put a config\.json with the model's own values beside it"
    ) as error:
        open_model(folder / "model.pth")
    settings = {
        "what the message asks for": settings_that_the_message_asks_for(str(error.value), config),
        "all": config,
        "the book's": {BOOK_WORDS.get(k, k): v for k, v in config.items()} | {"dtype": "torch.bfloat16"},
    }[words]
    (folder / "config.json").write_text(json.dumps(settings))
    with torch.no_grad():
        torch.testing.assert_close(open_model(folder / "model.pth").model(IDS), model(IDS), atol=0, rtol=0)


@pytest.mark.parametrize("names", ["ours", "GPT-2's"])
def test_weights_that_do_not_say_their_heads_open_with_a_config_that_does(folder, names):
    torch.manual_seed(3)
    model = GPTModel(GPTConfig(**SIZES, tie_embeddings=True, qkv_bias=True)).eval()
    state = dict(model.state_dict())
    if names == "GPT-2's":
        from scratchlm.checkpoints.names import GPT2, to_theirs

        state = to_theirs(GPT2, state, 2)
    torch.save(state, folder / "model.pth")
    with pytest.raises(CheckpointError, match=r"does not give n_heads, and 2 blocks of width 12") as error:
        open_model(folder / "model.pth")
    settings = settings_that_the_message_asks_for(str(error.value), SIZES)
    (folder / "config.json").write_text(json.dumps(settings))
    with torch.no_grad():
        torch.testing.assert_close(open_model(folder / "model.pth").model(IDS), model(IDS), atol=0, rtol=0)


def test_a_config_that_contradicts_the_weights_is_our_error(folder):
    torch.save(GPTModel(GPTConfig(**SIZES)).state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps(SIZES | {"n_layers": 3}))
    with pytest.raises(CheckpointError, match=r"missing: trf_blocks\.2"):
        open_model(folder / "model.pth")


def test_a_misspelt_setting_is_named_with_the_nearest(folder):
    torch.save(GPTModel(GPTConfig(**SIZES)).state_dict(), folder / "model.pth")
    (folder / "config.json").write_text(json.dumps({"n_head": 3}))
    with pytest.raises(CheckpointError, match="did you mean 'n_heads'"):
        open_model(folder / "model.pth")


def test_weights_of_another_model_are_named(folder):
    torch.save({"conv1.weight": torch.ones(2)}, folder / "model.pth")
    with pytest.raises(CheckpointError, match=r"got the names conv1\.weight"):
        open_model(folder / "model.pth")
