"""The commands of a chat, on an assistant that has learnt nothing."""

from __future__ import annotations

import json

import pytest
import torch

from scratchlm.checkpoints.store import save_model
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.serving import language_model


@pytest.fixture
def chat(tmp_path, tiny_tokenizer, run):
    """Chat with the assistant: lines in; returns standard output's turns and standard error's notes."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=tiny_tokenizer.vocab_size, context_length=96, emb_dim=16, n_heads=2, n_layers=1
    )
    task = {"kind": "instruction", "template": "plain"}
    folder = save_model(tmp_path / "assistant", GPTModel(config), tiny_tokenizer, task=task)

    def talk(*lines: str, flags: str = "--max-new-tokens 5") -> tuple[list[dict[str, str]], str]:
        code, out, err = run(f"chat --model {folder} {flags} --json", stdin="\n".join(lines) + "\n")
        assert code == 0, err
        return json.loads(out)["turns"], " ".join(err.split())

    return talk


def test_a_setting_changes_the_next_answer(chat):
    plain, _ = chat("the cat", "the cat")
    changed, notes = chat("the cat", "/set temperature 1.5", "/set seed 3", "the cat")
    assert changed[0] == plain[0] == plain[1]
    assert changed[1]["answer"] != plain[1]["answer"]
    assert "max_new_tokens = 5, temperature = 1.5, seed = 3" in notes


def test_every_kind_of_value_can_be_set_and_taken_back(chat):
    turns, notes = chat(
        '/set stop_texts ["x","y"]',
        "/set dry_breakers :",
        '/set logit_bias {"4": 2.5}',
        "/set beams 2",
        "/set early-stopping never",
        "/set beams off",
        "/set early_stopping off",
        "/set max_new_tokens 2",
        "/set max_new_tokens off",
        "the cat",
    )
    assert len(turns) == 1
    assert "logit_bias = {4: 2.5}" in notes
    assert notes.endswith(
        "max_new_tokens = 5, stop_texts = ['x', 'y'], dry_breakers = [':'], logit_bias = {4: 2.5}"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/st temperature 1", "chat has no command '/st'; did you mean 'set'?"),
        ("/set temprature 1", "chat has no setting 'temprature'; did you mean 'temperature'?"),
        ("/set temperature hot", "generate.temperature must be float, got 'hot'"),
        ("/set temperature", "/set temperature needs a value"),
        ("/set mirostat_tau 3", "mirostat_tau needs a temperature above 0"),
        ("/set beams 0", "beams must be a whole number of at least 1"),
        ("/retry", "/retry needs an earlier message"),
        ("/tokens", "/tokens needs an answer"),
        ("/save", "/save needs a file"),
    ],
)
def test_a_mistake_in_a_command_is_shown_and_the_chat_goes_on(chat, command, message):
    turns, notes = chat(command, "the cat")
    assert message in notes
    assert [turn["instruction"] for turn in turns] == ["the cat"]


def test_retry_replaces_the_last_answer(chat):
    turns, _ = chat("the cat", "/set temperature 2", "/set seed 8", "/retry")
    plain, _ = chat("the cat")
    assert [turn["instruction"] for turn in turns] == ["the cat"]
    assert turns[0]["answer"] != plain[0]["answer"]


def test_tokens_and_help_are_shown_and_the_conversation_is_saved(chat, tmp_path):
    file = tmp_path / "talk.json"
    turns, notes = chat("the cat", "/tokens", "/help", f"/save {file}")
    assert "probability: 90%+ 50%+ 20%+ 5%+ 0%+" in notes
    assert "/retry answers the last message again" in notes
    assert json.loads(file.read_text()) == {"settings": {"max_new_tokens": 5}, "turns": turns}


def test_the_system_prompt_can_be_changed(chat, monkeypatch):
    systems = []
    encode = language_model.assistant_prompt

    def noted(chosen, entry, *args, **kwargs):
        systems.append(entry.system)
        return encode(chosen, entry, *args, **kwargs)

    monkeypatch.setattr(language_model, "assistant_prompt", noted)
    chat("the cat", "/system the dog sat", "the cat")
    assert systems == ["", "the dog sat"]


def test_by_default_half_of_a_short_context_is_left_for_the_prompt(chat):
    _, notes = chat("/set", flags="")
    assert "max_new_tokens = 48" in notes
