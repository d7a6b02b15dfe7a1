"""Our own endpoints."""

import json

import pytest
import torch

from scratchlm.generation.generate import generate_ids
from scratchlm.inspection.inspect_prompt import inspect_prompt


def test_texts_are_classified_in_their_order(server, language_models):
    texts = ["a cat", "the dog sat on a mat " * 5, *[f"the mat {i}" for i in range(40)]]
    found = server.post("/api/classify", {"model": "spam", "texts": texts}).json()["results"]
    own = language_models["spam"].classify(texts)
    assert [one["text"] for one in found] == texts
    assert [one["label"] for one in found] == [one.label for one in own]
    assert [one["probability"] for one in found] == pytest.approx([one.probability for one in own], abs=1e-6)
    assert found[1]["truncated"]
    assert found[0]["probabilities"] == pytest.approx(
        {"ham": own[0].probabilities[0], "spam": own[0].probabilities[1]}
    )
    assert server.post("/api/classify", {"model": "spam", "texts": []}).json() == {"results": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": "base", "texts": ["a"]}, "is not a classifier"),
        ({"model": "spam", "texts": [""]}, "at least 1 character"),
        ({"model": "spam", "texts": "a"}, "valid list"),
    ],
)
def test_a_wrong_classification_is_refused(server, body, message):
    answer = server.post("/api/classify", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_tokens_have_ids_bytes_and_merges(server, language_models):
    tokenizer = language_models["base"].tokenizer
    text = "a cat sat é"
    found = server.post("/api/tokenize", {"model": "base", "text": text, "merges": True}).json()
    assert found["ids"] == tokenizer.encode(text)
    assert bytes(byte for token in found["tokens"] for byte in token["bytes"]) == text.encode()
    assert found["n_tokens"] == len(found["tokens"]) == len(found["merges"])
    for token, states in zip(found["tokens"], found["merges"]):
        assert states[-1] == [token["text"]]
        assert len(states) == len(token["bytes"])  # each merge joins two parts
    assert server.post("/api/detokenize", {"model": "base", "ids": found["ids"]}).json() == {"text": text}


def test_words_and_gpt2_tokens_need_no_model(server, tmp_path, monkeypatch):
    words = server.post("/api/tokenize", {"kind": "word", "text": "a cat, a dog"}).json()
    assert [token["text"] for token in words["tokens"]] == ["a", "cat", ",", "a", "dog"]
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path))
    answer = server.post("/api/tokenize", {"kind": "gpt2", "text": "a cat"})
    assert answer.status_code == 404
    assert "scratchlm data fetch gpt2_bpe" in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/api/tokenize", {"text": "a"}, "model is missing"),
        ("/api/tokenize", {"model": "base", "text": "a" * 201, "merges": True}, "at most 200 characters"),
        ("/api/detokenize", {"model": "base", "ids": [5000]}, "5000"),
        ("/api/trace", {"model": "base"}, "exactly one of prompt and messages"),
        ("/api/trace", {"model": "spam", "prompt": "a"}, "is a classifier"),
        (
            "/api/trace",
            {"model": "base", "prompt": "a", "ids": [1] * 64},
            "65 tokens, but the context of base holds 65",
        ),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(server, path, body, message):
    answer = server.post(path, body)
    if message.startswith("65"):
        assert answer.status_code == 200  # prompt and answer fill the context exactly
        assert server.post(path, body | {"ids": [1] * 65}).status_code == 400
        return
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_trace_shows_what_each_step_of_the_chain_removed(server, language_models):
    lm = language_models["base"]
    body = {"model": "base", "prompt": "a cat", "max_tokens": 4, "seed": 3, "top_k": 5, "n_candidates": 10}
    found = server.post("/api/trace", body).json()
    config = lm.generation_config(max_new_tokens=4, seed=3, top_k=5, temperature=1.0)
    [own] = generate_ids(lm.model, [lm.encode_prompt("a cat")], config, tokenizer=lm.tokenizer)
    assert (found["ids"], found["text"]) == (own.ids, own.text)
    for i, step in enumerate(found["steps"]):
        with torch.no_grad():
            probs = lm.model(torch.tensor([found["prompt_ids"] + found["ids"][:i]]))[0, -1].softmax(dim=-1)
        kept = [one for one in step["candidates"] if one["chosen_with"] > 0]
        assert len(kept) == 5
        assert step["id"] in {one["id"] for one in kept}
        assert sum(one["chosen_with"] for one in kept) == pytest.approx(1, abs=1e-5)
        for one in step["candidates"]:
            assert one["prob"] == pytest.approx(float(probs[one["id"]]), abs=1e-6)
        assert [(removed["step"], removed["n"]) for removed in step["removed"]] == [
            ("top_k", lm.config.vocab_size - 5)
        ]
    again = server.post("/api/trace", body | {"ids": found["ids"]}).json()
    for one, other in zip(again["steps"], found["steps"], strict=True):  # one pass, and one with a cache
        assert [c["id"] for c in one["candidates"]] == [c["id"] for c in other["candidates"]]
        assert [c["chosen_with"] for c in one["candidates"]] == pytest.approx(
            [c["chosen_with"] for c in other["candidates"]], abs=1e-5
        )
        assert [(r["step"], r["n"]) for r in one["removed"]] == [
            (r["step"], r["n"]) for r in other["removed"]
        ]


def test_a_streamed_trace_sends_each_step_as_it_is_chosen(server):
    body = {"model": "base", "prompt": "a cat", "max_tokens": 6, "seed": 3, "top_k": 5}
    whole = server.post("/api/trace", body).json()
    *events, last = server.stream("/api/trace", body | {"stream": True})
    assert last == "data: [DONE]"
    first, *pieces, end = [json.loads(event.removeprefix("data: ")) for event in events]
    assert first == {"prompt_ids": whole["prompt_ids"]}
    assert [step for piece in pieces for step in piece["steps"]] == whole["steps"]
    assert end == {"ids": whole["ids"], "text": whole["text"]}
    assert server.wait_until_idle()
    refused = server.post("/api/trace", body | {"stream": True, "ids": [1]})
    assert (refused.status_code, "leave stream out" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("name", ["base", "spam"])
def test_an_inspection_is_that_of_the_library(server, language_models, name):
    lm = language_models[name]
    found = server.post("/api/inspect", {"model": name, "prompt": "a cat sat", "n_top": 3}).json()
    own = inspect_prompt(lm.model, lm.tokenizer, "a cat sat", task=lm.task, n_top=3).as_json()
    assert found == json.loads(json.dumps(own))


def test_an_inspection_is_bounded(server):
    answer = server.post("/api/inspect", {"model": "base", "prompt": "the cat " * 40})
    assert answer.status_code == 400
    assert "must have 1 to" in answer.json()["error"]
    assert server.post("/api/inspect", {"model": "base", "prompt": "a", "n_top": 21}).status_code == 400


def test_metrics_count_requests_and_tokens(server):
    def value(name: str) -> float:
        lines = server.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    generated = 'scratchlm_generated_tokens_total{model="base"}'
    requests = 'scratchlm_requests_total{route="/v1/completions",status="200"}'
    before = value(generated), value(requests)
    server.post("/v1/completions", {"model": "base", "prompt": "a cat", "max_tokens": 7, "temperature": 0})
    assert (value(generated), value(requests)) == (before[0] + 7, before[1] + 1)
    assert value("scratchlm_open_texts") == 0
    text = server.get("/metrics").text
    assert 'scratchlm_request_seconds_bucket{le="+Inf"}' in text
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in text.splitlines())


def test_the_document_names_every_address_and_every_status(server):
    document = server.get("/openapi.json").json()
    assert {
        "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/api/chat",
        "/api/generate", "/api/tags", "/api/show", "/api/ps", "/api/version", "/api/embed", "/api/classify",
        "/api/tokenize", "/api/detokenize", "/api/inspect", "/api/trace", "/api/runs", "/health", "/metrics",
    } <= set(document["paths"])  # fmt: skip
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert {"200", "400", "401", "403", "413", "500", "503"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"]
            assert set(operation["responses"]["400"]["content"]) == {"application/json"}
            assert operation.get("description"), path
