"""Ollama's protocol, spoken by the official client with a real server."""

import math
import time

import ollama
import pytest

from scratchlm.generation.engine import Engine
from scratchlm.serving.ollama_schemas import Options, seconds
from tests.serving.conftest import running, served_models

QUESTION = [{"role": "user", "content": "who?"}]
GREEDY = {"temperature": 0, "num_predict": 8}


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ollama.Client(server.url) as one:
        yield one


def test_models_are_listed_shown_and_loaded(client):
    assert [model.model for model in client.list().models] == ["base", "chat", "spam"]
    assert [model.model for model in client.ps().models] == ["base", "chat", "spam"]
    shown = client.show("chat")
    assert shown.details.family == "gpt2"
    assert shown.modelinfo["general.parameter_count"] == 16800
    assert shown.template == "plain"


def test_a_chat_is_the_assistants_answer(client, language_models):
    answer = client.chat("chat", QUESTION, options=GREEDY)
    assert answer.message.content == language_models["chat"].ask("who?", max_new_tokens=8)
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "length", 8)
    assert answer.prompt_eval_count == len(language_models["chat"].tokenizer.encode("Q: who?\nA:"))
    assert answer.total_duration >= answer.eval_duration > 0


def test_a_streamed_chat_adds_up_to_the_whole(client):
    options = {"seed": 5, "num_predict": 12}
    whole = client.chat("chat:latest", QUESTION, options=options)
    parts = list(client.chat("chat", QUESTION, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate_continues_a_text_or_answers_it(client, language_models):
    base, chat = language_models["base"], language_models["chat"]
    assert client.generate("base", "a cat", options=GREEDY).response == base.generate(
        "a cat", max_new_tokens=8
    )
    assert client.generate("chat", "who?", options=GREEDY).response == chat.ask("who?", max_new_tokens=8)
    raw = client.generate("chat", "a cat", raw=True, options=GREEDY).response
    assert raw == chat.generate("a cat", max_new_tokens=8)
    kind = client.generate("chat", "who?", system="Be kind.", options=GREEDY).response
    assert kind == chat.ask("who?", system="Be kind.", max_new_tokens=8)


def test_options_for_hardware_change_nothing(client):
    hardware = {"num_thread": 4, "num_gpu": 0, "num_batch": 512, "use_mmap": True, "num_keep": 4}
    plain = client.generate("base", "a cat", options=GREEDY).response
    assert client.generate("base", "a cat", options=GREEDY | hardware).response == plain
    assert len(client.embed("base", "a cat", options=hardware).embeddings) == 1


def test_options_that_ask_for_what_happens_anyway_are_accepted(client):
    usual = {"repeat_last_n": -1, "penalize_newline": True, "tfs_z": 1.0, "f16_kv": True, "vocab_only": False}
    plain = client.generate("base", "a cat", options=GREEDY).response
    assert client.generate("base", "a cat", options=GREEDY | usual).response == plain


def test_penalties_regard_the_last_tokens_that_are_named_also_with_mirostat():
    options = {"repeat_penalty": 1.3, "presence_penalty": 0.5, "mirostat": 2}
    found = Options(**options, repeat_last_n=64).settings()
    assert (found["repetition_penalty"], found["presence_penalty"], found["penalty_window"]) == (1.3, 0.5, 64)
    assert "mirostat_tau" in found
    everything = Options(**options, repeat_last_n=-1).settings()
    assert everything == {name: value for name, value in found.items() if name != "penalty_window"}
    none = Options(**options, repeat_last_n=0).settings()
    assert none == {name: value for name, value in everything.items() if "penalty" not in name}


def test_num_ctx_limits_an_embedded_text_and_sampling_changes_none(client):
    cut = client.embed("base", "a cat sat", options={"num_ctx": 1, "temperature": 0.5})
    assert cut.prompt_eval_count == 1
    with pytest.raises(ollama.ResponseError, match="the context of base holds 1"):
        client.embed("base", "a cat sat", truncate=False, options={"num_ctx": 1})


def test_the_time_of_an_answer_begins_with_its_first_token(client, monkeypatch):
    step = Engine.step

    def slow_step(engine):
        time.sleep(0.002)  # less than the server collects tokens for
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow_step)
    answer = client.generate("base", "a cat", options=GREEDY)
    assert answer.eval_duration >= 7 * 0.002e9
    assert answer.prompt_eval_duration + answer.eval_duration <= answer.total_duration


@pytest.mark.parametrize(
    ("text", "expected_s"), [("0", 0.0), ("300", 300.0), ("-1", -1.0), ("1h30m", 5400.0)]
)
def test_a_duration_may_be_a_text(text, expected_s):
    assert seconds(text) == expected_s


def test_log_probabilities_come_with_each_token(client):
    answer = client.generate("base", "a cat", options=GREEDY, logprobs=True, top_logprobs=2)
    assert len(answer.logprobs) == 8
    assert all(one.logprob == one.top_logprobs[0].logprob for one in answer.logprobs)


def test_embeddings_have_length_one(client, server):
    found = client.embed("base", ["a cat", "the dog"]).embeddings
    assert [math.hypot(*vector) for vector in found] == pytest.approx([1.0, 1.0])
    [raw] = [
        server.post("/v1/embeddings", {"model": "base", "input": "a cat"}).json()["data"][0]["embedding"]
    ]
    assert found[0] == pytest.approx([value / math.hypot(*raw) for value in raw])


def test_a_text_beyond_the_context_is_cut_only_on_request(client):
    long = "the cat " * 100
    assert len(client.embed("base", long).embeddings) == 1
    with pytest.raises(ollama.ResponseError, match="the context of base holds 64"):
        client.embed("base", long, truncate=False)
    with pytest.raises(ollama.ResponseError, match="the context of base holds 64"):
        client.generate("base", long)


def test_num_ctx_limits_prompt_and_answer(client):
    answer = client.generate("base", "a cat", options={"temperature": 0, "num_ctx": 10})
    assert answer.prompt_eval_count + answer.eval_count == 11
    with pytest.raises(ollama.ResponseError, match="the context of base holds 1"):
        client.generate("base", "a cat", options={"num_ctx": 1})


@pytest.mark.parametrize(
    ("call", "message", "status"),
    [
        (lambda c: c.chat("nope", QUESTION), "no model 'nope'", 404),
        (
            lambda c: c.chat("chat", QUESTION, tools=[{"type": "function", "function": {"name": "f"}}]),
            "no tools",
            400,
        ),
        (
            lambda c: c.generate("base", "a", options={"mirostat": 1}),
            "options.mirostat: input should be 0 or 2, got 1",
            400,
        ),
        (lambda c: c.generate("base", "a", system="Be kind."), "system prompt", 400),
        (lambda c: c.generate("base", "a", keep_alive="soon"), "a duration must be", 400),
        (lambda c: c.pull("llama3"), "Not Found", 404),
    ],
)
def test_a_wrong_request_is_refused_in_the_protocols_form(client, call, message, status):
    with pytest.raises(ollama.ResponseError, match=message) as caught:
        call(client)
    assert caught.value.status_code == status


def test_keep_alive_unloads_a_model_and_the_next_request_loads_it_again(language_models, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    models = served_models({"base": language_models["base"]})
    with running(models) as server, ollama.Client(server.url) as client:
        before = client.generate("base", "a cat", options=GREEDY).response
        assert client.generate("base", keep_alive=0).done_reason == "unload"
        until = time.monotonic() + 2
        while client.ps().models and time.monotonic() < until:
            time.sleep(0.02)
        assert client.ps().models == []
        assert client.generate("base", "a cat", options=GREEDY, keep_alive=-1).response == before
        assert len(client.ps().models) == 1
