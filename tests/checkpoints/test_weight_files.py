"""Weight files of training scripts, with prefixed names and other values beside the weights."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scratchlm.checkpoints.weight_files import open_weights
from scratchlm.core.errors import CheckpointError

WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "_forward_module.", "model.", "net.gpt.")
MODELS = {
    "ours": ("tok_emb.weight", "trf_blocks.0.norm1.scale", "out_head.weight"),
    "GPT-2": ("transformer.wte.weight", "transformer.h.0.ln_1.weight", "lm_head.weight"),
    "GPT-2 without a head": ("wte.weight", "h.0.ln_1.weight"),
    "Llama": ("model.embed_tokens.weight", "model.layers.0.input_layernorm.weight", "lm_head.weight"),
}


def tensors_of(names):
    return {name: torch.arange(4.0) + number for number, name in enumerate(names)}


def write(path, tensors):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    elif path.suffix == ".json":
        first, *others = tensors
        save_file({first: tensors[first]}, path.with_name("a.safetensors"))
        torch.save({name: tensors[name] for name in others}, path.with_name("b.bin"))
        files = {first: "a.safetensors", **dict.fromkeys(others, "b.bin")}
        path.write_text(json.dumps({"weight_map": files}))
    else:
        torch.save(tensors, path)
    return path


def assert_read(path, tensors):
    weights = open_weights(path)
    assert sorted(weights) == sorted(tensors)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".index.json"])
@pytest.mark.parametrize("names", MODELS.values(), ids=MODELS)
def test_names_around_the_model_are_taken_off_in_every_format(tmp_path, names, suffix):
    tensors = tensors_of(names)
    around = {f"model._orig_mod.module.{name}": tensor for name, tensor in tensors.items()}
    assert_read(write(tmp_path / f"model{suffix}", around), tensors)


@pytest.mark.parametrize("order", list(itertools.permutations(WRAPPERS, 2)), ids="".join)
def test_names_around_the_model_may_stand_in_any_order(tmp_path, order):
    for names in MODELS.values():
        tensors = tensors_of(names)
        around = {f"{''.join(order)}{name}": tensor for name, tensor in tensors.items()}
        assert_read(write(tmp_path / "model.pt", around), tensors)


def test_names_around_single_blocks_are_taken_off(tmp_path):
    tensors = tensors_of(["transformer.wte.weight", "transformer.h.0.ln_1.weight"])
    around = {
        "transformer.wte.weight": tensors["transformer.wte.weight"],
        "transformer.h.0._checkpoint_wrapped_module._orig_mod.ln_1.weight": tensors[
            "transformer.h.0.ln_1.weight"
        ],
    }
    assert_read(write(tmp_path / "model.pt", around), tensors)


@pytest.mark.parametrize(
    "keys", [("model",), ("module",), ("model_state_dict",), ("state_dict", "model"), ("model", "state_dict")]
)
def test_weights_are_found_under_the_keys_of_training_scripts(tmp_path, keys):
    tensors = tensors_of(MODELS["GPT-2"])
    value = tensors
    for key in reversed(keys):
        value = {key: value, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    assert_read(write(tmp_path / "model.pt", value), tensors)


def test_what_was_saved_beside_the_weights_is_kept(tmp_path):
    value = {"model": tensors_of(MODELS["GPT-2"]), "model_args": {"n_head": 4}}
    assert open_weights(write(tmp_path / "ckpt.pt", value)).settings["model_args"] == {"n_head": 4}


def test_two_models_in_one_file_are_named(tmp_path):
    names = [f"{part}.{name}" for part in ("student", "teacher") for name in MODELS["ours"]]
    path = write(tmp_path / "model.pt", tensors_of(names))
    with pytest.raises(CheckpointError, match=r"holds 2 models: student\., teacher\.; save the state_dict"):
        open_weights(path)


def test_a_weight_that_comes_twice_is_named(tmp_path):
    path = write(tmp_path / "model.pt", tensors_of(["tok_emb.weight", "module.tok_emb.weight"]))
    with pytest.raises(
        CheckpointError, match=r"the same weight as module\.tok_emb\.weight and tok_emb\.weight"
    ):
        open_weights(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_float8_without_scales_is_read_exactly(tmp_path, suffix, dtype):
    values = torch.tensor([0.5, -1.75, 448.0, 0.015625])  # all of them numbers of both formats but the third
    tensors = {"tok_emb.weight": values.to(dtype)}
    weights = open_weights(write(tmp_path / f"model{suffix}", tensors))
    assert torch.equal(weights["tok_emb.weight"].float(), values.to(dtype).float())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", "scale_weight", "input_scale"])
def test_float8_with_scales_is_refused_by_its_name(tmp_path, suffix, scale):
    layer = "model.layers.0.mlp.up_proj"
    tensors = {f"{layer}.weight": torch.ones(4).to(torch.float8_e4m3fn), f"{layer}.{scale}": torch.ones(1)}
    weights = open_weights(write(tmp_path / f"model{suffix}", tensors))
    with pytest.raises(CheckpointError, match=rf"{layer}\.weight as float8_e4m3fn with scales in .*bfloat16"):
        weights[f"{layer}.weight"]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool], ids=str)
def test_a_matrix_of_integers_is_refused_by_its_type(tmp_path, dtype):
    weights = open_weights(write(tmp_path / "a.pth", {"tok_emb.weight": torch.ones(2, dtype=dtype)}))
    with pytest.raises(CheckpointError, match=rf"tok_emb\.weight as {str(dtype)[6:]}, which cannot be read"):
        weights["tok_emb.weight"]


@pytest.mark.parametrize("name", ["qweight", "weight_packed"])
def test_packed_integers_are_called_so(tmp_path, name):
    with pytest.raises(CheckpointError, match="quantized integers that cannot be read; use a bfloat16"):
        open_weights(write(tmp_path / "a.pth", {f"model.layers.0.mlp.up_proj.{name}": torch.ones(2)}))


def test_complex_numbers_are_refused_by_their_name(tmp_path):
    weights = open_weights(
        write(tmp_path / "model.safetensors", {"tok_emb.weight": torch.ones(2, dtype=torch.cfloat)})
    )
    with pytest.raises(CheckpointError, match=r"tok_emb\.weight as complex64"):
        weights["tok_emb.weight"]
