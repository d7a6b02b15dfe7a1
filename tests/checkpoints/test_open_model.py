"""Single weight files of the book's readers and of training scripts."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import scratchlm
from scratchlm.checkpoints import open_model as open_model_module
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.checkpoints.open_model import import_model, open_model
from scratchlm.core.errors import CheckpointError
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.byte_symbols import to_symbols

SIZES = {
    "vocab_size": 270,
    "context_length": 16,
    "emb_dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "drop_rate": 0.0,
}


@pytest.fixture(scope="module")
def tokenizer():
    text = "the cat sat on the mat by the door and the dog sat there too "
    return train_bpe([text * 5], 270, special_tokens=["<|endoftext|>"])


@pytest.fixture
def model():
    torch.manual_seed(3)
    return GPTModel(GPTConfig(**SIZES, qkv_bias=False)).eval()


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A folder with the book's settings and a tokenizer, without weights."""
    tokenizer.save(tmp_path / "tokenizer.json")
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "qkv_bias": False}))
    return tmp_path


def with_masks(model: GPTModel) -> dict[str, torch.Tensor]:
    """The state dict of the book's own GPTModel, which saves its causal masks."""
    mask = torch.triu(torch.ones(16, 16), diagonal=1)
    return {**model.state_dict(), **{f"trf_blocks.{i}.att.mask": mask for i in range(2)}}


def assert_same(path, model):
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(open_model(path).model(ids), model(ids), atol=0, rtol=0)


@pytest.mark.parametrize("has_masks", [True, False])
def test_the_books_file_is_the_model_with_and_without_masks(folder, model, has_masks):
    torch.save(with_masks(model) if has_masks else model.state_dict(), folder / "model.pth")
    assert_same(folder / "model.pth", model)


def test_the_books_checkpoint_with_an_optimizer_is_the_model(folder, model):
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(5)[None]).sum().backward()
    optimizer.step()
    saved = {"model_state_dict": with_masks(model), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(saved, folder / "model_and_optimizer.pth")
    assert_same(folder / "model_and_optimizer.pth", model)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_our_names_in_other_files_are_the_model(folder, model, suffix):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if suffix == ".npz":
        np.savez(folder / "model.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        save_file(state, folder / "model.safetensors")
    assert_same(folder / f"model{suffix}", model)


def test_a_head_equal_to_the_embedding_stays_one_matrix(folder):
    tied = GPTModel(GPTConfig(**SIZES, tie_embeddings=True)).eval()
    (folder / "config.json").write_text(json.dumps({**SIZES, "tie_embeddings": True}))
    torch.save(tied.state_dict(), folder / "model.pth")
    loaded = import_model(folder / "model.pth").model
    assert loaded.out_head.weight is loaded.tok_emb.weight


def test_a_gguf_file_opens_like_any_other(tmp_path, model, tokenizer):
    assert_same(export_gguf(tmp_path / "model.gguf", model, tokenizer), model)


def test_gpt2s_own_tokenizer_files_serve_too(folder, model, tokenizer):
    (folder / "tokenizer.json").unlink()
    symbols = {to_symbols(token): id_ for token, id_ in tokenizer.vocab.items()} | tokenizer.special_tokens
    (folder / "vocab.json").write_text(json.dumps(symbols))
    lines = [f"{to_symbols(left)} {to_symbols(right)}" for left, right in tokenizer.merges]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    torch.save(model.state_dict(), folder / "model.pth")
    assert open_model(folder / "model.pth").tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"epoch": 3}, "must hold tensors by name, got int under 'epoch'"),
        ([1, 2], "must hold a state dict, got list"),
        ({}, "must hold a state dict"),
    ],
)
def test_a_file_that_holds_no_weights_says_so(folder, value, message):
    torch.save(value, folder / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        open_model(folder / "model.pth")


def test_a_file_of_another_kind_is_named(folder):
    (folder / "model.h5").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"must be a model folder or one of .*, got \.h5"):
        open_model(folder / "model.h5")


def test_a_vocabulary_padded_by_nanogpt_takes_gpt2s_tokenizer(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(open_model_module, "GPT2_VOCAB_SIZE", 270)
    monkeypatch.setattr(open_model_module, "PADDED_VOCAB_SIZE", 280)
    monkeypatch.setattr(open_model_module, "asset_path", lambda name: tmp_path / name)
    monkeypatch.setattr(open_model_module, "load_gpt2_tokenizer", lambda *_: tokenizer)
    padded = GPTModel(GPTConfig(**{**SIZES, "vocab_size": 276}))
    torch.save(padded.state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.json").write_text('{"n_heads": 3}')
    assert open_model(tmp_path / "model.pth").tokenizer is tokenizer


def test_a_tokenizer_that_is_not_there_is_asked_for_by_its_file_names(folder, model):
    (folder / "tokenizer.json").unlink()
    torch.save(model.state_dict(), folder / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"no tokenizer\.json, no vocab\.json with merges\.txt and no meta"
    ):
        open_model(folder / "model.pth")


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder, tokenizer):
    small = GPTModel(GPTConfig(**{**SIZES, "vocab_size": 250}))
    (folder / "config.json").write_text(json.dumps({**SIZES, "vocab_size": 250}))
    torch.save(small.state_dict(), folder / "model.pth")
    with pytest.raises(CheckpointError, match="fewer than the 270 of its tokenizer"):
        open_model(folder / "model.pth")


def classifier_of(model: GPTModel) -> GPTModel:
    """The classifier of the book's chapter 6: the head replaced by one for two classes."""
    torch.manual_seed(123)
    model.out_head = torch.nn.Linear(model.config.emb_dim, 2)
    return model


def test_the_books_classifier_is_a_classifier_whose_classes_are_numbers(folder, model):
    torch.save(classifier_of(model).state_dict(), folder / "review_classifier.pth")
    loaded = open_model(folder / "review_classifier.pth")
    assert loaded.task == {"kind": "classification", "classes": ["0", "1"], "max_length": 16}
    assert loaded.model.out_head.bias.equal(model.out_head.bias)


def test_the_books_classifier_classifies(folder, model):
    torch.save(classifier_of(model).state_dict(), folder / "review_classifier.pth")
    (prediction,) = scratchlm.load(folder / "review_classifier.pth").classify(["the cat sat"])
    assert prediction.label in ("0", "1")


def test_a_task_beside_the_file_names_the_classes(folder, model):
    torch.save(classifier_of(model).state_dict(), folder / "a.pth")
    task = {"kind": "classification", "classes": ["ham", "spam"], "max_length": 12}
    (folder / "task.json").write_text(json.dumps(task))
    assert open_model(folder / "a.pth").task == task


def test_a_task_that_belongs_to_another_file_is_refused(folder, model):
    torch.save(model.state_dict(), folder / "a.pth")
    (folder / "task.json").write_text(json.dumps({"kind": "classification", "classes": ["ham", "spam"]}))
    with pytest.raises(CheckpointError, match="move it away"):
        open_model(folder / "a.pth")


@pytest.mark.parametrize("classes", [3, None, [1, 2], {"a": 1}])
def test_a_task_whose_classes_are_no_names_is_refused(folder, model, classes):
    torch.save(classifier_of(model).state_dict(), folder / "a.pth")
    (folder / "task.json").write_text(json.dumps({"kind": "classification", "classes": classes}))
    with pytest.raises(CheckpointError, match="classes"):
        open_model(folder / "a.pth")
