"""Stop ids and chat templates survive every conversion between formats."""

import json
from dataclasses import replace

import pytest
import torch

from scratchlm.checkpoints.conversion import convert
from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.modelfile import PromptFrame
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.usage import usage_of_folder
from scratchlm.core.errors import CheckpointError
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers import train_bpe
from scratchlm.tokenizers.special_tokens import end_ids

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<eos>"]
CHATML = (
    "{% for m in messages %}{{ bos_token + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
)


@pytest.fixture
def tokenizer():
    return train_bpe(["The cat sat on the mat. " * 40], 270, special_tokens=SPECIAL)


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A Hugging Face folder without any stop id."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=290, context_length=24, emb_dim=32, n_heads=4, n_layers=1, norm="rms", positions="rotary",
        feed_forward="swiglu", linear_bias=False, ff_dim=64,
    )  # fmt: skip
    path = export_huggingface(tmp_path / "hf", GPTModel(config), tokenizer)
    (path / "generation_config.json").unlink()
    (path / "tokenizer_config.json").unlink()
    change(path / "config.json", eos_token_id=None, bos_token_id=None, pad_token_id=None)
    return path


def change(path, **values) -> None:
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | values))


def id_of(tokenizer, token: str) -> int:
    return tokenizer.special_tokens[token]


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (None, None, ["<|endoftext|>"]),
        (["<eos>"], None, ["<eos>"]),
        (["<|im_end|>"], ["<|im_end|>"], ["<|im_end|>"]),
        (["<|endoftext|>"], ["<|im_end|>", "<|endoftext|>"], ["<|im_end|>", "<|endoftext|>"]),
        (["<eos>"], ["<|im_end|>"], ["<|im_end|>", "<eos>"]),
    ],
)
def test_every_id_that_ends_a_text_is_known(folder, tokenizer, config, generation, expected):
    for file, tokens in (("config.json", config), ("generation_config.json", generation)):
        ids = None if tokens is None else [id_of(tokenizer, token) for token in tokens]
        change(folder / file, eos_token_id=ids[0] if ids is not None and len(ids) == 1 else ids)
    loaded = open_model(folder)
    assert end_ids(loaded.tokenizer, loaded.task) == tuple(id_of(tokenizer, token) for token in expected)


def test_the_end_that_the_tokenizer_names_counts_where_the_model_names_none(folder, tokenizer):
    change(folder / "tokenizer_config.json", eos_token={"content": "<eos>", "special": True})
    assert open_model(folder).task == {"stop_ids": [id_of(tokenizer, "<eos>")]}


def test_the_mark_with_which_the_chat_template_ends_a_turn_is_an_end(folder, tokenizer):
    change(
        folder / "tokenizer_config.json", chat_template=CHATML, bos_token="<|im_start|>", eos_token="<eos>"
    )
    task = open_model(folder).task
    assert task["stop_ids"] == [id_of(tokenizer, "<eos>"), id_of(tokenizer, "<|im_end|>")]
    assert task["chat_template"] == CHATML
    assert task["chat_tokens"] == {"bos_token": "<|im_start|>", "eos_token": "<eos>"}


def test_an_end_that_is_an_added_token_but_not_a_special_one_counts_as_well(folder, tokenizer):
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    change(folder / "tokenizer.json", added_tokens=[token | {"special": False} for token in tokens])
    change(folder / "tokenizer_config.json", eos_token="<eos>")
    assert open_model(folder).task == {"stop_ids": [id_of(tokenizer, "<eos>")]}
    change(folder / "tokenizer_config.json", chat_template=CHATML)
    assert open_model(folder).task["stop_ids"] == [
        id_of(tokenizer, token) for token in ("<eos>", "<|im_end|>")
    ]


def test_ids_that_the_model_does_not_score_are_no_ends(folder):
    """transformers writes 50256 into the config of any GPT-2."""
    change(folder / "config.json", eos_token_id=50256)
    assert open_model(folder).task == {}


def test_a_template_file_goes_before_the_tokenizer_s_settings(folder):
    change(folder / "tokenizer_config.json", chat_template="old")
    (folder / "chat_template.jinja").write_text("new")
    assert open_model(folder).task["chat_template"] == "new"


def test_of_several_templates_the_default_is_taken(folder):
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    change(folder / "tokenizer_config.json", chat_template=several)
    assert open_model(folder).task["chat_template"] == "plain"


@pytest.mark.parametrize("to", ["native", "hf", "gguf"])
def test_ends_and_template_are_kept_through_every_format(folder, tmp_path, tokenizer, to):
    ends = [id_of(tokenizer, "<|im_end|>"), id_of(tokenizer, "<eos>")]
    change(folder / "generation_config.json", eos_token_id=ends)
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    change(folder / "tokenizer_config.json", chat_template=CHATML, **tokens)
    loaded = open_model(folder)
    assert loaded.task == {"stop_ids": ends, "chat_template": CHATML, "chat_tokens": tokens}
    target = tmp_path / ("a.gguf" if to == "gguf" else "out")
    convert(loaded, target, to=to)
    assert open_model(target).task == loaded.task


def test_what_is_exported_says_to_other_programs_where_a_text_ends(folder, tmp_path, tokenizer):
    ends = [id_of(tokenizer, "<|im_end|>"), id_of(tokenizer, "<eos>")]
    change(folder / "generation_config.json", eos_token_id=ends)
    change(folder / "tokenizer_config.json", chat_template=CHATML, bos_token="<|im_start|>")
    loaded = open_model(folder)
    convert(loaded, tmp_path / "hf2", to="hf")
    for file in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / "hf2" / file).read_text())
        assert written["eos_token_id"] == ends
        assert written["bos_token_id"] == id_of(tokenizer, "<|im_start|>")
    assert (tmp_path / "hf2" / "chat_template.jinja").read_text() == CHATML
    convert(loaded, tmp_path / "a.gguf", to="gguf")
    metadata = GGUFFile(tmp_path / "a.gguf").metadata
    assert [metadata[f"tokenizer.ggml.{key}_token_id"] for key in ("eos", "eot")] == ends
    assert metadata["tokenizer.chat_template"] == CHATML
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert [line for line in lines if "stop" in line] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<eos>"',
    ]
    assert not any(line.startswith("TEMPLATE") for line in lines)  # Ollama takes the file's own


def test_an_assistant_tuned_here_tells_other_programs_the_mark_that_ends_its_answers(
    folder, tmp_path, tokenizer
):
    source = replace(open_model(folder), task={"kind": "instruction", "template": "chatml"})
    frame = PromptFrame(
        before="<|im_start|>user\n", after="<|im_end|>\n<|im_start|>assistant\n", answer_end="<|im_end|>"
    )
    ends = [id_of(tokenizer, "<|im_end|>"), id_of(tokenizer, "<|endoftext|>")]
    convert(source, tmp_path / "hf2", to="hf", frame=frame)
    assert json.loads((tmp_path / "hf2" / "generation_config.json").read_text())["eos_token_id"] == ends
    assert "<|im_start|>user" in (tmp_path / "hf2" / "chat_template.jinja").read_text()
    convert(source, tmp_path / "a.gguf", to="gguf", frame=frame)
    metadata = GGUFFile(tmp_path / "a.gguf").metadata
    assert [metadata[f"tokenizer.ggml.{key}_token_id"] for key in ("eos", "eot")] == ends


def test_a_gguf_file_of_others_says_it_too(folder, tmp_path, tokenizer):
    change(folder / "generation_config.json", eos_token_id=[id_of(tokenizer, "<|im_end|>")])
    change(folder / "tokenizer_config.json", chat_template=CHATML)
    loaded = open_model(folder)
    convert(loaded, tmp_path / "a.gguf", to="gguf")
    data = (tmp_path / "a.gguf").read_bytes().replace(b"scratchlm.", b"somebodys.")
    (tmp_path / "a.gguf").write_bytes(data)
    task = read_gguf(tmp_path / "a.gguf").task
    assert task["stop_ids"] == loaded.task["stop_ids"]
    assert task["chat_template"] == CHATML


@pytest.mark.parametrize(
    ("file", "values", "named"),
    [
        ("config.json", {"eos_token_id": "x"}, "eos_token_id"),
        ("config.json", {"eos_token_id": [1, None]}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": {"a": 1}}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id"),
        ("tokenizer_config.json", {"chat_template": 7}, "chat_template"),
        ("tokenizer_config.json", {"eos_token": 7}, "eos_token"),
    ],
)
def test_a_value_that_cannot_be_what_it_is_called_is_our_error(folder, tokenizer, file, values, named):
    change(folder / file, **values)
    with pytest.raises(CheckpointError, match=named):
        usage_of_folder(folder, tokenizer, n_ids=290)


@pytest.mark.parametrize("task", [{"stop_ids": ["a"]}, {"chat_template": 1}, {"chat_tokens": {"a": 1}}])
def test_a_task_of_ours_that_was_edited_is_looked_at(folder, tmp_path, task):
    loaded = replace(open_model(folder), task=task)
    with pytest.raises(CheckpointError, match=next(iter(task))):
        convert(loaded, tmp_path / "b", to="native")


def test_a_token_that_was_added_without_enlarging_the_model_does_no_harm(folder):
    """A folder after `tokenizer.add_tokens` without `resize_token_embeddings`."""
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    pad = {"id": 290, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False}
    value["added_tokens"] += [
        {**pad, "id": id_, "content": f"[PAD{id_}]", "normalized": False, "special": True}
        for id_ in range(270, 291)
    ]
    path.write_text(json.dumps(value))
    loaded = open_model(folder)
    assert loaded.tokenizer.vocab_size == 291 > loaded.config.vocab_size


def test_an_ordinary_token_that_the_model_does_not_know_is_an_error(folder):
    words = "The quick brown fox jumps over the lazy dog, and sphinx of black quartz judges my vow. "
    larger = train_bpe([words * 40], 300)
    assert larger.vocab_size == 300
    larger.save(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match="do not belong together"):
        open_model(folder)
