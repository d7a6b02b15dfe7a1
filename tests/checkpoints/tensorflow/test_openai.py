"""OpenAI's checkpoints and the book's nested arrays, against transformers with the same numbers."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scratchlm.checkpoints.open_model import import_model, open_model
from scratchlm.checkpoints.tensorflow.bundle import open_bundle
from scratchlm.checkpoints.tensorflow.openai import load_params_into, params_from_bundle
from scratchlm.core.errors import CheckpointError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.checkpoints.tensorflow.golden.arrays import N_HEADS, N_LAYERS, E, T, V, gpt2

os.environ.setdefault("HF_HUB_OFFLINE", "1")
GOLDEN = Path(__file__).parent / "golden"
HPARAMS = {"n_vocab": V, "n_ctx": T, "n_embd": E, "n_head": N_HEADS, "n_layer": N_LAYERS}
CONFIG = GPTConfig(
    vocab_size=V,
    context_length=T,
    emb_dim=E,
    n_heads=N_HEADS,
    n_layers=N_LAYERS,
    drop_rate=0.0,
    qkv_bias=True,
)


@pytest.fixture
def folder(tmp_path):
    """A folder laid out like OpenAI's, with a tokenizer of the same size."""
    for file in GOLDEN.glob("gpt2.ckpt.*"):
        shutil.copy(file, tmp_path / file.name.replace("gpt2.ckpt", "model.ckpt"))
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS))
    train_bpe(["the cat sat on the mat by the door " * 3], V).save(tmp_path / "tokenizer.json")
    return tmp_path


@pytest.fixture
def params():
    return params_from_bundle(open_bundle(GOLDEN / "gpt2.ckpt"), N_LAYERS)


@pytest.fixture
def theirs():
    """transformers' model with the arrays copied in; its Conv1D has TensorFlow's layout."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": E, "n_head": N_HEADS, "n_layer": N_LAYERS}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
    part = {"g": "weight", "w": "weight", "b": "bias"}
    state = {}
    for name, array in gpt2().items():
        *path, last = name.removeprefix("model/").replace("h0", "h/0").replace("h1", "h/1").split("/")
        path = [*path, part[last]] if last in part else [last, "weight"]
        state["transformer." + ".".join(path)] = (
            torch.from_numpy(np.array(array)).squeeze(0)
            if last == "w"
            else (torch.from_numpy(np.array(array)))
        )
    model.load_state_dict({**state, "lm_head.weight": state["transformer.wte.weight"]})
    return model


def ids():
    return torch.randint(0, V, (3, T), generator=torch.Generator().manual_seed(0))


def assert_equal_logits(ours, theirs):
    with torch.no_grad():
        assert (ours.eval()(ids()) - theirs(ids()).logits).abs().max() <= 1e-4


def test_the_checkpoint_gives_transformers_logits(folder, theirs):
    loaded = import_model(folder)
    assert_equal_logits(loaded.model, theirs)
    assert loaded.config.tie_embeddings
    assert open_model(folder).config == loaded.config


def test_the_nested_form_is_the_books(params):
    assert set(params) == {"blocks", "wte", "wpe", "g", "b"}
    assert len(params["blocks"]) == N_LAYERS
    block = params["blocks"][1]
    assert block["attn"]["c_attn"]["w"].shape == (E, 3 * E)  # squeezed
    np.testing.assert_array_equal(block["mlp"]["c_proj"]["b"], gpt2()["model/h1/mlp/c_proj/b"])
    np.testing.assert_array_equal(params["g"], gpt2()["model/ln_f/g"])


@pytest.mark.parametrize("tie", [True, False])
def test_arrays_are_copied_into_a_finished_model(params, theirs, tie):
    model = GPTModel(dataclasses.replace(CONFIG, tie_embeddings=tie))
    load_params_into(model, params)
    assert_equal_logits(model, theirs)
    assert (model.out_head.weight.data_ptr() == model.tok_emb.weight.data_ptr()) == tie


def test_every_wrong_array_is_listed(params):
    del params["blocks"][0]["ln_1"]["g"]
    params["blocks"][1]["extra"] = {"w": np.zeros(3, np.float32)}
    params["wpe"] = params["wpe"][:3]
    with pytest.raises(CheckpointError) as caught:
        load_params_into(GPTModel(CONFIG), params)
    for part in (r"missing: trf_blocks.0.norm1.scale", "unexpected: h1/extra/w", "misshapen: wpe (3, 8)"):
        assert part in str(caught.value)


def test_a_model_without_query_bias_is_told_so(params):
    model = GPTModel({**{name: getattr(CONFIG, name) for name in ("vocab_size", "context_length", "emb_dim")},
                      "n_heads": N_HEADS, "n_layers": N_LAYERS, "qkv_bias": False})  # fmt: skip
    with pytest.raises(CheckpointError, match=r"unexpected: h0/attn/c_attn/b"):
        load_params_into(model, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 3}, r"missing: trf_blocks\.2"),
        ({"n_layer": 1}, "unexpected: model/h1/attn"),
        ({"n_embd": 16}, "misshapen: model/wte"),
        ({"n_head": 3}, "n_heads=3"),
        ({"n_ctx": None}, "context_length must be a whole number"),
        ({"n_layer": 10**9}, "1000000000 blocks"),
    ],
)
def test_settings_that_do_not_fit_are_named(folder, changes, message):
    (folder / "hparams.json").write_text(json.dumps({**HPARAMS, **changes}))
    with pytest.raises(CheckpointError, match=message):
        import_model(folder)


def test_arrays_in_an_npz_are_the_same_model(folder, theirs):
    for file in folder.glob("model.ckpt*"):
        file.unlink()
    np.savez(folder / "gpt2.npz", **gpt2())
    loaded = import_model(folder / "gpt2.npz")  # eight wide: one head is the guess, so compare the embedding
    assert torch.equal(loaded.model.tok_emb.weight, torch.from_numpy(gpt2()["model/wte"]))


COLLISIONS = [
    ["wte", "wte/x"],
    ["wte/x", "wte"],
    ["model/wte", "wte"],
    ["model/h0/attn", "model/h0/attn/w", "wte"],
    ["wte", "blocks"],
    ["wte", "blocks/x"],
]


@pytest.mark.parametrize("names", COLLISIONS)
def test_names_that_lie_beneath_others_are_refused(names):
    with pytest.raises(CheckpointError, match="conflicts with another array"):
        params_from_bundle({name: np.zeros((3, 4), np.float32) for name in names}, 2)


@pytest.mark.parametrize("names", [*COLLISIONS, ["wte", "h0"], ["wte", "wpe", "ln_f"]])
def test_an_npz_of_such_names_is_refused(names, tmp_path):
    np.savez(tmp_path / "x.npz", **{name: np.zeros((3, 4), np.float32) for name in names})
    with pytest.raises(
        CheckpointError, match=r"lack the matrix|unexpected|with and without the prefix model/"
    ):
        import_model(tmp_path / "x.npz")


def test_openai_s_names_in_a_file_of_bfloat16_are_read(folder, tmp_path):
    whole = import_model(folder)
    bundle = open_bundle(next(iter(folder.glob("*.index"))).with_suffix(""))
    tensors = {name: torch.from_numpy(np.array(bundle[name])).bfloat16() for name in bundle}
    torch.save(tensors, folder / "w.pth")
    again = import_model(folder / "w.pth").model.state_dict()
    for name, tensor in whole.model.state_dict().items():
        assert again[name].equal(tensor.bfloat16().float())
