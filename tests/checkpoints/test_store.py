"""Model folders read back exactly, and every damage is detected."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import (
    TrainingState,
    best_checkpoint,
    checkpoint_folder,
    list_checkpoints,
    load_model,
    load_training_state,
    newest_good_checkpoint,
    resolve_model,
    save_model,
    verify,
)
from scratchlm.core.checksums import sha256_of_file
from scratchlm.core.errors import CheckpointError
from scratchlm.quantization.apply import quantize_model, quantized_layers
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.tiny import tiny_gpt


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["the cat sat on the mat " * 20], 270)


def make_model(tokenizer, *, tie=True):
    torch.manual_seed(0)
    sizes = {"context_length": 8, "emb_dim": 8, "n_layers": 2}
    return tiny_gpt(tokenizer.vocab_size, **sizes, tie_embeddings=tie).eval()


@pytest.mark.parametrize("tie", [True, False])
def test_a_loaded_model_gives_the_same_logits(tokenizer, tmp_path, tie):
    model = make_model(tokenizer, tie=tie)
    save_model(tmp_path / "m", model, tokenizer)
    loaded = load_model(tmp_path / "m")
    ids = torch.randint(0, tokenizer.vocab_size, (2, 8), generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded.model(ids), model(ids))
    assert loaded.config == model.config
    assert loaded.tokenizer.encode("the mat") == tokenizer.encode("the mat")
    assert (loaded.model.out_head.weight is loaded.model.tok_emb.weight) == tie


def test_the_manifest_tells_what_numbers_can_depend_on(tokenizer, tmp_path):
    manifest = verify(save_model(tmp_path / "m", make_model(tokenizer), tokenizer))
    assert manifest["device"] == "cpu"
    assert manifest["versions"].keys() >= {"python", "torch", "numpy", "threads", "system"}


def test_a_tied_head_is_written_once(tokenizer, tmp_path):
    tied = save_model(tmp_path / "tied", make_model(tokenizer), tokenizer)
    untied = save_model(tmp_path / "untied", make_model(tokenizer, tie=False), tokenizer)
    difference = (untied / "model.safetensors").stat().st_size - (tied / "model.safetensors").stat().st_size
    assert difference >= tokenizer.vocab_size * 8 * 4


def test_a_classifier_head_of_another_width_is_restored(tokenizer, tmp_path):
    model = make_model(tokenizer)
    model.out_head = torch.nn.Linear(8, 3)
    save_model(tmp_path / "m", model, tokenizer, task={"kind": "classification", "classes": ["a", "b", "c"]})
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded.model.out_head.weight, model.out_head.weight)
    assert torch.equal(loaded.model.out_head.bias, model.out_head.bias)
    assert loaded.task["classes"] == ["a", "b", "c"]


def test_every_weight_of_a_loaded_model_can_be_trained(tokenizer, tmp_path):
    save_model(tmp_path / "m", make_model(tokenizer), tokenizer)
    model = load_model(tmp_path / "m").model
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


FILES = ["config.json", "model.safetensors", "tokenizer.json", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_file_is_a_checkpoint_error_that_names_it(tokenizer, tmp_path, name, damage):
    folder = save_model(tmp_path / "m", make_model(tokenizer), tokenizer)
    file = folder / name
    data = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        middle = len(data) // 2
        damaged = {
            "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "truncate": data[:middle],
            "empty": b"",
        }
        file.write_bytes(damaged[damage])
    if name == "manifest.json" and damage == "flip":
        file.write_bytes(data.replace(b'"sha256": "', b'"sha256": "0', 1))
    with pytest.raises(CheckpointError, match=r"manifest\.json" if name == "manifest.json" else name):
        load_model(folder)


def test_a_manifest_cannot_point_outside_its_folder(tokenizer, tmp_path):
    folder = save_model(tmp_path / "m", make_model(tokenizer), tokenizer)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"sha256": "0", "size_bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"\.\./secret"):
        verify(folder)


def test_weights_of_another_config_are_refused_by_name(tokenizer, tmp_path):
    small = save_model(tmp_path / "a", make_model(tokenizer), tokenizer)
    config = json.loads((small / "config.json").read_text())
    config["emb_dim"] = 16
    (small / "config.json").write_text(json.dumps(config))
    manifest = json.loads((small / "manifest.json").read_text())
    manifest["files"]["config.json"] = {
        "sha256": sha256_of_file(small / "config.json"),
        "size_bytes": (small / "config.json").stat().st_size,
    }
    (small / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_model(small)


def test_a_failed_write_leaves_the_old_folder_as_it_was(tokenizer, tmp_path, monkeypatch):
    folder = save_model(tmp_path / "m", make_model(tokenizer), tokenizer, facts={"step": 1})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scratchlm.checkpoints.store.save_file", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(folder, make_model(tokenizer), tokenizer, facts={"step": 2})
    assert verify(folder)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_training_state_comes_back_exactly(tokenizer, tmp_path):
    state = TrainingState(
        tensors={"optimizer.x.exp_avg": torch.rand(3), "rng.cpu": torch.get_rng_state()},
        values={"progress": {"step": 3, "val_loss": 1 / 3}},
    )
    save_model(tmp_path / "m", make_model(tokenizer), tokenizer, training_state=state)
    back = load_training_state(tmp_path / "m")
    assert back.values == state.values
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in state.tensors.items())


def run_with_checkpoints(tmp_path, tokenizer, losses):
    for step, loss in losses.items():
        save_model(
            checkpoint_folder(tmp_path, step),
            make_model(tokenizer),
            tokenizer,
            facts={"step": step, "val_loss": loss},
        )
    return tmp_path


def test_a_run_folder_stands_for_its_newest_good_checkpoint(tokenizer, tmp_path):
    run = run_with_checkpoints(tmp_path, tokenizer, {5: 2.0, 10: 1.0, 20: 3.0})
    assert resolve_model(run).name == "step-00000020"
    assert resolve_model(run / "best").name == "step-00000010"
    (checkpoint_folder(run, 20) / "config.json").write_text("{}")
    folder, damaged = newest_good_checkpoint(run)
    assert folder.name == "step-00000010"
    assert "step-00000020" in damaged[0]
    assert best_checkpoint(run)[0].name == "step-00000010"


@pytest.mark.parametrize(("use", "step"), [("best", 10), ("last", 20), (None, 20)])
def test_a_run_folder_stands_for_what_its_newest_checkpoint_says(tokenizer, tmp_path, use, step):
    for number, loss in ((10, 1.0), (20, 2.0)):
        facts = {"step": number, "val_loss": loss} | ({} if use is None else {"use": use})
        save_model(checkpoint_folder(tmp_path, number), make_model(tokenizer), tokenizer, facts=facts)
    assert resolve_model(tmp_path) == checkpoint_folder(tmp_path, step)
    assert resolve_model(tmp_path / "best") == checkpoint_folder(tmp_path, 10)
    assert resolve_model(tmp_path / "last") == checkpoint_folder(tmp_path, 20)


@pytest.mark.parametrize("choice", ["", "best"])
def test_a_damaged_checkpoint_that_is_passed_over_is_named(tokenizer, tmp_path, caplog, choice):
    run = run_with_checkpoints(tmp_path, tokenizer, {10: 2.0, 20: 1.0})
    (checkpoint_folder(run, 20) / "config.json").write_text("{}")
    assert load_model(run / choice).folder.name == "step-00000010"
    assert "skipping a damaged checkpoint" in caplog.text
    assert "step-00000020" in caplog.text


def test_unfinished_folders_are_never_taken_for_checkpoints(tokenizer, tmp_path):
    run = run_with_checkpoints(tmp_path, tokenizer, {5: 2.0})
    shutil.copytree(checkpoint_folder(run, 5), run / "checkpoints" / ".step-00000009.partial-77")
    assert [folder.name for folder in list_checkpoints(run)] == ["step-00000005"]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda p: None, "nothing"),
        (lambda p: p.mkdir(), "a folder without one"),
        (lambda p: p.write_text(""), "a file"),
    ],
)
def test_a_path_without_a_model_says_what_was_found(tmp_path, make, found):
    path = tmp_path / "x"
    make(path)
    with pytest.raises(CheckpointError, match=f"got {found}"):
        load_model(path)


def test_a_run_without_checkpoints_says_so(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has no undamaged checkpoint"):
        load_model(tmp_path)


def test_an_adapter_alone_is_named_with_the_way_to_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is an adapter, .*scratchlm convert .* FOLDER --to native"):
        resolve_model(tmp_path)


# --- quantized models


@pytest.fixture
def quantized_folder(tmp_path, tokenizer):
    sizes = {"context_length": 16, "emb_dim": 64, "n_heads": 4, "n_layers": 2}
    model = tiny_gpt(tokenizer.vocab_size, **sizes, tie_embeddings=True, drop_rate=0.0).eval()
    quantize_model(model, QuantizationConfig(bits=4))
    return model, save_model(tmp_path / "quantized", model, tokenizer)


def test_a_quantized_model_is_read_back_exactly_and_is_smaller(quantized_folder, generator):
    model, folder = quantized_folder
    loaded = load_model(folder)
    ids = torch.randint(0, model.config.vocab_size, (2, 16), generator=generator)
    assert torch.equal(loaded.model(ids), model(ids))
    assert loaded.model.has_tied_head()
    n_bytes = (folder / "model.safetensors").stat().st_size
    assert (
        n_bytes < 4 * model.n_parameters() / 2
    )  # mostly 4 bits; the file's header is a third of this tiny one
    described = json.loads((folder / "config.json").read_text())["quantization"]
    assert described["trf_blocks.1.ff.layers.2"] == {"kind": "int4_asymmetric", "group_size": 64}


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="reads Linux's list of mapped files")
def test_a_quantized_model_is_memory_mapped(quantized_folder):
    loaded = load_model(quantized_folder[1])
    mapped = [
        range(*(int(end, 16) for end in line.split()[0].split("-")))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("model.safetensors")
    ]
    for layer in quantized_layers(loaded.model).values():
        assert any(layer.codes.data_ptr() in place for place in mapped)


def test_a_folder_that_describes_other_layers_than_it_holds_is_refused(quantized_folder):
    folder = quantized_folder[1]
    config = json.loads((folder / "config.json").read_text())
    config["quantization"]["out_head"]["kind"] = "nf4"
    text = json.dumps(config)
    (folder / "config.json").write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = {
        "sha256": sha256_of_file(folder / "config.json"),
        "size_bytes": len(text),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="describes other quantized layers"):
        load_model(folder)
