"""OpenAI's protocol, spoken by the official client with a real server."""

import json
import math

import openai
import pytest
import torch

from scratchlm.generation.generate import generate_ids
from scratchlm.serving.scoring import mean_state

QUESTION = [{"role": "user", "content": "who?"}]


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_models_are_listed_and_described(client, server):
    assert [model.id for model in client.models.list()] == ["base", "chat", "spam"]
    assert client.models.retrieve("chat").id == "chat"
    card = server.get("/v1/models/spam").json()
    assert (card["kind"], card["can_chat"], card["classes"]) == ("classification", False, ["ham", "spam"])


def test_a_completion_is_what_generate_returns(client, language_models):
    lm = language_models["base"]
    for settings in ({"temperature": 0}, {"temperature": 0.9, "seed": 7}):
        answer = client.completions.create(model="base", prompt="once upon", max_tokens=12, **settings)
        config = lm.generation_config(max_new_tokens=12, **settings)
        [own] = generate_ids(lm.model, [lm.encode_prompt("once upon")], config, tokenizer=lm.tokenizer)
        assert answer.choices[0].text == own.text
        assert answer.choices[0].finish_reason == "length"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)


def test_a_chat_is_the_answer_of_the_template(client, language_models):
    lm = language_models["chat"]
    answer = client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=10, temperature=0)
    assert answer.choices[0].message.content == lm.ask("who?", max_new_tokens=10)
    assert answer.choices[0].message.role == "assistant"


def test_a_streamed_chat_adds_up_to_the_whole_and_ends_with_usage(client):
    settings = {"model": "chat", "messages": QUESTION, "max_tokens": 15, "seed": 3}
    whole = client.chat.completions.create(**settings)
    chunks = list(
        client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[
        0
    ].finish_reason
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_several_answers_differ_and_each_is_reproducible(client):
    settings = {"model": "chat", "messages": QUESTION, "max_tokens": 15, "seed": 3, "n": 3}
    texts = [choice.message.content for choice in client.chat.completions.create(**settings).choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in client.chat.completions.create(**settings).choices] == texts
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**settings, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts


def test_a_stop_text_ends_the_answer_before_it(client):
    whole = (
        client.completions.create(model="base", prompt="once upon", max_tokens=30, temperature=0)
        .choices[0]
        .text
    )
    stop = whole[10:13]
    answer = client.completions.create(
        model="base", prompt="once upon", max_tokens=30, temperature=0, stop=[stop]
    )
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_log_probabilities_are_the_models(client, language_models):
    lm = language_models["chat"]
    choice = (
        client.chat.completions.create(
            model="chat", messages=QUESTION, max_tokens=6, temperature=0, logprobs=True, top_logprobs=4
        )
        .choices[0]
        .logprobs.content
    )
    ids = lm.tokenizer.encode("Q: who?\nA:")
    for token in choice:
        with torch.no_grad():
            expected = lm.model(torch.tensor([ids]))[0, -1].log_softmax(dim=-1)
        best = expected.topk(4)
        assert [top.logprob for top in token.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert bytes(token.bytes) == lm.tokenizer.token_bytes(int(best.indices[0]))
        assert token.logprob == token.top_logprobs[0].logprob
        ids.append(int(best.indices[0]))


def test_echoed_prompts_carry_their_log_probabilities(client, language_models):
    lm = language_models["base"]
    ids = lm.encode_prompt("once upon a time")
    answer = client.completions.create(
        model="base", prompt=[ids, ids[:3]], max_tokens=1, temperature=0, echo=True, logprobs=1
    )
    with torch.no_grad():
        expected = (
            lm.model(torch.tensor([ids]))[0, :-1]
            .log_softmax(dim=-1)
            .gather(1, torch.tensor(ids[1:])[:, None])
        )
    first, second = (choice.logprobs for choice in answer.choices)
    assert first.token_logprobs[0] is None
    assert first.token_logprobs[1:-1] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
    assert len(second.tokens) == 3 + 1
    assert answer.choices[0].text.startswith("once upon a time")
    assert max(first.top_logprobs[-1].values()) == first.token_logprobs[-1]  # greedy


def test_prompts_are_only_scored_with_no_new_tokens(client):
    answer = client.completions.create(model="base", prompt="once upon", max_tokens=0, echo=True, logprobs=0)
    assert answer.choices[0].text == "once upon"
    assert len(answer.choices[0].logprobs.tokens) == 2
    assert answer.usage.completion_tokens == 0


def test_an_answer_that_is_begun_is_continued(client, language_models):
    lm = language_models["chat"]
    messages = [*QUESTION, {"role": "assistant", "content": "the cat"}]
    answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=8, temperature=0)
    prompt = lm.tokenizer.encode("Q: who?\nA:") + lm.tokenizer.encode(" the cat")
    config = lm.generation_config(max_new_tokens=8)
    assert (
        answer.choices[0].message.content
        == generate_ids(lm.model, [prompt], config, tokenizer=lm.tokenizer)[0].text
    )


def test_roles_parts_and_earlier_turns_reach_the_template(client, language_models):
    lm = language_models["chat"]
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "cat?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "who?"},
    ]
    answer = client.chat.completions.create(model="chat", messages=messages, max_tokens=8, temperature=0)
    own = lm.ask("who?", system="Be kind.", history=[("a cat?", "yes")], max_new_tokens=8)
    assert answer.choices[0].message.content == own


def test_embeddings_are_mean_final_states(client, language_models):
    lm = language_models["base"]
    answer = client.embeddings.create(
        model="base", input=["a cat", "the dog sat"]
    )  # the client asks for base64
    for found, text in zip(answer.data, ("a cat", "the dog sat")):
        assert found.embedding == pytest.approx(mean_state(lm, lm.encode_prompt(text)), rel=1e-6)
    with torch.no_grad():
        expected = lm.model.hidden_states(torch.tensor([lm.encode_prompt("a cat")]))[0].mean(dim=0)
    assert answer.data[0].embedding == pytest.approx(expected.tolist(), abs=1e-6)
    plain = client.embeddings.create(model="base", input="a cat", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, rel=1e-6)


def test_responses_work_without_state(client, language_models):
    lm = language_models["chat"]
    whole = client.responses.create(
        model="chat", input="who?", instructions="Be kind.", max_output_tokens=8, temperature=0
    )
    assert whole.output_text == lm.ask("who?", system="Be kind.", max_new_tokens=8)
    assert (whole.status, whole.store) == ("incomplete", False)
    events = list(
        client.responses.create(model="chat", input="who?", max_output_tokens=8, temperature=0, stream=True)
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == lm.ask("who?", max_new_tokens=8)
    assert events[-1].response.output_text == text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    with pytest.raises(openai.BadRequestError, match="keeps no state"):
        client.responses.create(model="chat", input="who?", previous_response_id=whole.id)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "call no tools"),
        ({"model": "base"}, "not tuned for conversations"),
        ({"model": "spam"}, "is a classifier"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "needs a user's message"),
        ({"messages": [{"role": "tool", "content": "a", "tool_call_id": "1"}]}, "role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]},
            r"messages\.0\.content\.0\.type: input should be 'text'",
        ),
        (
            {"messages": [{"role": "user", "content": 3}]},
            r"messages\.0\.content: input should be a valid string",
        ),
        ({"stop": ["x", ""]}, r"stop\.1: string should have at least 1 character"),
        ({"extra_body": {"str": 1}}, "no field 'str'"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 3}, "needs logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["x"] * 17}, "stop: list should have at most 16 items"),
        ({"n": 99}, "n"),
        ({"extra_body": {"temprature": 1}}, "no field 'temprature'"),
    ],
)
def test_a_wrong_chat_is_refused_with_the_reason(client, changes, message):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.chat.completions.create(**{"model": "chat", "messages": QUESTION, "max_tokens": 2, **changes})
    assert caught.value.body["type"] == "invalid_request_error"


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match=r"no model 'chatt'; did you mean 'chat'\?") as caught:
        client.chat.completions.create(model="chatt", messages=QUESTION)
    assert caught.value.code == "model_not_found"


def test_a_prompt_beyond_the_context_names_both_counts(client):
    with pytest.raises(
        openai.BadRequestError, match="has 70 tokens, but the context of base holds 64"
    ) as caught:
        client.completions.create(model="base", prompt=[5] * 70)
    assert caught.value.code == "context_length_exceeded"


def test_an_answer_ends_where_the_context_is_full(client):
    answer = client.completions.create(
        model="base", prompt=[5] * 60, max_tokens=1000, temperature=0, logprobs=0
    )
    assert answer.usage.completion_tokens == 5  # the last token needs no place of its own
    assert answer.choices[0].finish_reason == "length"


def test_the_whole_stream_is_well_formed(server):
    body = {"model": "base", "prompt": "a cat", "max_tokens": 5, "stream": True, "logprobs": 2}
    lines = server.stream("/v1/completions", body)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    tokens = [token for chunk in chunks for token in chunk["choices"][0]["logprobs"]["token_logprobs"]]
    assert len(tokens) == 5
    assert all(math.isfinite(token) and token < 0 for token in tokens)
