"""Every field of a request reaches the choice of the tokens, and changes it."""

import json

import jsonschema
import pytest

from scratchlm.generation.generate import generate_ids

SCHEMA = {
    "type": "object",
    "properties": {"cat": {"type": "boolean"}},
    "required": ["cat"],
    "additionalProperties": False,
}
PLAIN = {"model": "base", "prompt": "a cat sat on", "max_tokens": 24, "seed": 1}


def text_of(server, **changes) -> str:
    answer = server.post("/v1/completions", {**PLAIN, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.3},
        {"top_p": 0.05},
        {"top_k": 2},
        {"min_p": 0.6},
        {"typical_p": 0.05},
        {"epsilon_cutoff": 0.008},
        {"eta_cutoff": 0.9},
        {"top_n_sigma": 0.5},
        {"mirostat_tau": 1.0},
        {"repetition_penalty": 8.0, "temperature": 0.0},
        {"presence_penalty": 2.0, "temperature": 0.0},
        {"frequency_penalty": 2.0, "temperature": 0.0},
        {"no_repeat_ngram": 1, "temperature": 0.0},
        {"logit_bias": {"65": 100.0}},
        {"seed": 2},
    ],
)
def test_a_setting_has_the_effect_of_generate(server, language_models, settings):
    lm = language_models["base"]
    own = {"temperature": 1.0, "seed": 1, **settings}
    if "logit_bias" in own:
        own["logit_bias"] = {int(token_id): bias for token_id, bias in own["logit_bias"].items()}
    config = lm.generation_config(max_new_tokens=24, **own)
    [expected] = generate_ids(lm.model, [lm.encode_prompt(PLAIN["prompt"])], config, tokenizer=lm.tokenizer)
    assert text_of(server, **settings) == expected.text
    is_greedy = settings.get("temperature") == 0.0
    assert text_of(server, **settings) != text_of(server, **({"temperature": 0.0} if is_greedy else {}))


def test_zero_switches_a_filter_off(server):
    assert text_of(server, top_k=0, min_p=0.0, presence_penalty=0.0) == text_of(server)
    assert text_of(server, top_k=-1) == text_of(server)


def test_a_top_p_of_zero_keeps_the_most_likely_token(server):
    assert text_of(server, top_p=0) == text_of(server, temperature=0.0) != text_of(server)


def test_a_minimum_length_keeps_the_end_away(server):
    body = {**PLAIN, "min_new_tokens": 24}
    assert server.post("/v1/completions", body).json()["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_answer_in_a_json_schema_validates_in_every_protocol(server, seed):
    named = {"type": "json_schema", "json_schema": {"name": "cats", "schema": SCHEMA, "strict": True}}
    chat = {"model": "chat", "messages": [{"role": "user", "content": "who?"}], "seed": seed}
    openai = server.post("/v1/chat/completions", {**chat, "response_format": named}).json()
    responses = server.post(
        "/v1/responses",
        {
            "model": "chat",
            "input": "who?",
            "seed": seed,
            "text": {"format": {"type": "json_schema", "name": "cats", "schema": SCHEMA}},
        },
    ).json()
    ollama = server.post(
        "/api/chat",
        {
            "model": "chat",
            "messages": chat["messages"],
            "stream": False,
            "format": SCHEMA,
            "options": {"seed": seed},
        },
    ).json()
    texts = [
        openai["choices"][0]["message"]["content"],
        responses["output"][0]["content"][0]["text"],
        ollama["message"]["content"],
    ]
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert openai["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mirostat_tau": 2.0, "top_k": 5}, "mirostat_tau and top_k cannot be combined"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 1000}}, "logit_bias"),
        ({"logit_bias": {"99999": 1}}, "has ids 0 to 289, got 99999"),
        ({"response_format": {"type": "json_schema"}}, "json_schema must be given"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "nonsense"}},
                }
            },
            "schema",
        ),
    ],
)
def test_an_impossible_setting_is_a_400_that_names_it(server, changes, message):
    answer = server.post("/v1/completions", {**PLAIN, **changes})
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
