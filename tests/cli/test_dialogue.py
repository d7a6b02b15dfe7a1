"""The commands of a chat, on an assistant that has learnt nothing."""

import json
import signal

import pytest
import torch

from scratchlm import load
from scratchlm.checkpoints.store import save_model
from scratchlm.cli import dialogue, terminal
from scratchlm.cli.dialogue import Dialogue
from scratchlm.core.errors import ConfigError
from scratchlm.generation.engine import Engine
from scratchlm.serving import language_model
from tests.processes import one_thread
from tests.terminals import typed_into
from tests.tiny import tiny_gpt


@pytest.fixture
def assistants(tmp_path, tiny_tokenizer):
    """Folders of two assistants that differ in their weights, and in their context of 96 and 48 tokens."""
    folders = []
    for seed, context_length in enumerate((96, 48)):
        torch.manual_seed(seed)
        model = tiny_gpt(tiny_tokenizer.vocab_size, context_length=context_length)
        task = {"kind": "instruction", "template": "plain"}
        folders.append(save_model(tmp_path / f"assistant{seed}", model, tiny_tokenizer, task=task))
    return folders


@pytest.fixture
def chat(assistants, run):
    """Chat with the first assistant: lines in; returns standard output's turns and standard error's notes."""

    def talk(*lines: str, flags: str = "--max-new-tokens 5") -> tuple[list[dict[str, str]], str]:
        code, out, err = run(f"chat --model {assistants[0]} {flags} --json", stdin="\n".join(lines) + "\n")
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
        "max_new_tokens = 5, stop_texts = ['x', 'y'], dry_breakers = [':'], logit_bias = {4: 2.5} "
        "note: no effect until dry_multiplier is set: dry_breakers"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/st temperature 1", "chat has no command '/st'; did you mean 'set'?"),
        ("/set temprature 1", "chat has no setting 'temprature'; did you mean 'temperature'?"),
        ("/set temperature hot", "generate.temperature must be float, got 'hot'"),
        ("/set temperature", "/set temperature needs a value"),
        ("/set attention_sinks 4", "rotary positions; got 4 and learned positions"),
        ("/set mirostat_tau 3", "mirostat_tau needs a temperature above 0"),
        ("/set beams 0", "beams must be a whole number of at least 1"),
        ("/set length_penalty long", "length_penalty must be a finite number, got 'long'"),
        ("/model nowhere", "nowhere"),
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


def test_quit_ends_the_chat(chat):
    turns, notes = chat("the cat", "/help", "/quit", "the dog")
    assert [turn["instruction"] for turn in turns] == ["the cat"]
    assert "/quit ends the chat" in notes


def test_the_system_prompt_can_be_changed(chat, monkeypatch):
    systems = []
    encode = language_model.assistant_prompt

    def noted(chosen, entry, *args, **kwargs):
        systems.append(entry.system)
        return encode(chosen, entry, *args, **kwargs)

    monkeypatch.setattr(language_model, "assistant_prompt", noted)
    _, notes = chat("the cat", "/system the dog sat", "the cat", "/system")
    assert systems == ["", "the dog sat"]
    assert "system prompt: the dog sat" in notes
    assert "no system prompt" in notes


def test_by_default_half_of_a_short_context_is_left_for_the_prompt(chat):
    _, notes = chat("/set", flags="")
    assert "max_new_tokens = 48" in notes


def test_the_length_penalty_of_beam_search_is_a_setting(chat, monkeypatch):
    used = []
    search = language_model.beam_search

    def noted(*args, length_penalty, **kwargs):
        used.append(length_penalty)
        return search(*args, length_penalty=length_penalty, **kwargs)

    monkeypatch.setattr(language_model, "beam_search", noted)
    turns, notes = chat(
        "/set length_penalty 0.5", "/set beams 2", "the cat", "/set length_penalty off", "/retry"
    )
    assert "note: no effect until beams is set: length_penalty" in notes
    assert used == [0.5, 1.0]
    assert len(turns) == 1


def test_settings_without_effect_are_named(chat):
    assert "no effect until temperature is set: top_k, seed" in chat("/set top_k 3", "/set seed 1")[1]
    assert "no effect" not in chat("/set temperature 1", "/set top_k 3")[1]


def test_another_model_continues_the_conversation(chat, assistants, monkeypatch):
    prompts = []
    encode = language_model.assistant_prompt

    def noted(chosen, entry, *args, **kwargs):
        prompts.append([exchange.request for exchange in entry.history])
        return encode(chosen, entry, *args, **kwargs)

    monkeypatch.setattr(language_model, "assistant_prompt", noted)
    turns, notes = chat(
        "the cat", "/model nowhere", "sat", f"/model {assistants[1]}", "/set", "sat", flags="--memory 9"
    )
    assert [turn["instruction"] for turn in turns] == ["the cat", "sat", "sat"]
    assert prompts == [[], ["the cat"], ["the cat", "sat"]]
    assert turns[1]["answer"] != turns[2]["answer"]
    assert f"You are talking to {assistants[1]}" in notes
    assert "max_new_tokens = 24" in notes  # its default is half the context of the new model


def test_turns_that_fall_out_of_the_context_are_said_as_they_fall_out(chat):
    messages = [f"the cat sat on mat {i}" for i in range(6)]
    turns, notes = chat(*messages, flags="--memory 9 --max-new-tokens 5")
    assert [turn["instruction"] for turn in turns] == messages
    fallen = [sentence for sentence in notes.split("note: ") if "fit the context of 96 tokens" in sentence]
    assert "the oldest turn is not in the prompt" in fallen[0]
    assert "the 2 oldest turns are not in the prompt" in fallen[1]
    assert len(fallen) == len(set(fallen)) < 6


def test_a_prompt_that_leaves_no_room_for_the_answer_is_said(chat):
    assert "exceed the context" not in chat("the cat")[1]
    assert (
        "max_new_tokens=90 exceed the context of 96 tokens"
        in chat("/set max_new_tokens 90", "the cat sat on")[1]
    )


@pytest.fixture
def talk(assistants):
    """A dialogue with the first assistant that keeps all turns."""
    console = terminal.console(stderr=True)
    return Dialogue(assistants[0], console, memory=9, max_new_tokens=5, device="cpu")


@pytest.fixture
def engines(monkeypatch):
    """The engines that dialogues have made."""
    made = []

    def noted(*args, **kwargs):
        made.append(Engine(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(dialogue, "Engine", noted)
    return made


@pytest.mark.parametrize("min_capacity", [1024, 1])
def test_answers_equal_those_without_a_kept_engine(talk, assistants, engines, monkeypatch, min_capacity):
    monkeypatch.setattr(dialogue, "MIN_CAPACITY", min_capacity)
    lm = load(assistants[0], device="cpu")
    history = []
    for message in ("the cat", "sat on", "the dog"):
        answer = "".join(talk.answer(message))
        assert answer == lm.ask(message, history=history, max_new_tokens=5)
        history.append((message, answer))
    assert len(engines) == (1 if min_capacity == 1024 else 2)  # a larger one when there is no room


def test_a_further_turn_reads_only_what_is_new(talk, engines):
    list(talk.answer("the cat sat on the mat"))
    if engines[0].kernel != "native":
        pytest.skip("without the C kernel only whole chunks of 256 tokens are shared")
    n_first = engines[0].stats.prompt_tokens
    list(talk.answer("the dog"))
    assert engines[0].stats.shared_tokens >= n_first


def test_an_answer_that_is_stopped_keeps_what_was_shown_and_frees_the_engine(talk, engines):
    answer = talk.answer("the cat")
    shown = next(answer) + next(answer)
    answer.close()
    assert talk.turns == [{"instruction": "the cat", "answer": shown}]
    assert not engines[0].has_work


def test_a_retry_that_fails_keeps_the_turn(talk):
    list(talk.answer("the cat"))
    turns = list(talk.turns)
    assert talk.obey('/set logit_bias {"999999": 1}') is False
    assert talk.obey("/retry")
    with pytest.raises(ConfigError):
        list(talk.answer())
    assert talk.turns == turns


@pytest.mark.slow
def test_in_a_terminal_ctrl_c_stops_the_answer_and_errors_do_not_end_the_chat(assistants, tmp_path):
    pytest.importorskip("readline", reason="without readline the terminal is read like a pipe")
    command = ("-m", "scratchlm", "chat", "--model", str(assistants[0]), "--max-new-tokens", "50000")
    with typed_into(*command, here=tmp_path, env=one_thread(tmp_path / "home")) as program:
        assert f"You are talking to {assistants[0]}" in program.wait_for("you> ")
        program.type("the cat\r")
        program.wait_for("exceed the context of 96 tokens")
        program.wait_for(" ")
        program.process.send_signal(signal.SIGINT)
        program.wait_for("you> ")
        program.type("/set max_new_tokens 3\r")
        program.wait_for("you> ")
        program.type('/set logit_bias {"999999": 1}\r')
        program.wait_for("you> ")
        program.type("/retry\r")
        program.wait_for("999999")
        program.wait_for("you> ")
        program.type("/set logit_bias off\r")
        program.wait_for("you> ")
        program.type("/save talk.json\r")
        program.wait_for("saved 1 turns")
        program.wait_for("you> ")
        program.type("\x04")
        assert program.process.wait(30) == 0
    assert len(json.loads((tmp_path / "talk.json").read_text())["turns"][0]["answer"]) > 0
