"""The test judge itself: the official clients understand it, and its faults are what they say."""

import contextlib

import httpx
import pytest

from tests.servers import judge_server as faults

ASK = [{"role": "user", "content": "What?"}]
TEXT = "85 – and \n\nnothing 😀 else"


@pytest.fixture
def server(judge_server):
    judge_server.reply = lambda messages: TEXT
    return judge_server


def ollama_chat(server, **settings):
    body = {"model": "llama3", "messages": ASK, **settings}
    return httpx.post(f"{server.url}/api/chat", json=body, timeout=5.0)


def test_ollamas_client_reads_the_stream(server):
    ollama = pytest.importorskip("ollama")
    with contextlib.closing(ollama.Client(server.url)) as client:
        parts = list(client.chat("llama3", ASK, stream=True))
        assert "".join(part.message.content for part in parts) == TEXT
        assert (parts[-1].done, parts[-1].done_reason, parts[-1].eval_count) == (True, "stop", len(TEXT))
        assert client.chat("llama3", ASK).message.content == TEXT
        assert [found.model for found in client.list().models] == ["gpt-4o-mini:latest", "llama3:latest"]
        with pytest.raises(ollama.ResponseError, match="model 'llama9' not found") as caught:
            client.chat("llama9", ASK)
    assert caught.value.status_code == 404


def test_openais_client_reads_the_stream(server):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        ask = client.chat.completions.create
        parts = list(ask(model="llama3", messages=ASK, stream=True, stream_options={"include_usage": True}))
        assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == TEXT
        assert parts[-2].choices[0].finish_reason == "stop"
        assert parts[-1].usage.completion_tokens == len(TEXT)
        assert ask(model="llama3", messages=ASK).choices[0].message.content == TEXT
        assert [found.id for found in client.models.list()] == ["gpt-4o-mini", "llama3"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            ask(model="llama9", messages=ASK)


def test_it_remembers_who_asked_what(server):
    ollama_chat(server, options={"seed": 1})
    [asked] = server.asked
    assert (asked.path, asked.messages, asked.body["options"]) == ("/api/chat", ASK, {"seed": 1})
    assert server.most_at_once == 1


def test_faults_come_in_order_and_then_the_one_that_stays(server):
    server.faults = [faults.refuses(429, retry_after="3"), None]
    server.every_time = faults.garbage()
    busy, well, page = (ollama_chat(server) for _ in range(3))
    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "3")
    assert (well.status_code, well.text.count("\n")) == (200, -(-len(TEXT) // 4) + 1)
    assert page.text == "<html>hello</html>\n"


def test_a_broken_connection_is_one(server):
    server.faults = [faults.reset(after=2)]
    with pytest.raises(httpx.TransportError):
        ollama_chat(server)


@pytest.mark.parametrize(
    ("fault", "n_lines", "last"),
    [(faults.cut(after=2), 2, "done"), (faults.error_inside("out of memory", after=1), 2, "error")],
)
def test_a_stream_ends_where_the_fault_says(server, fault, n_lines, last):
    server.faults = [fault]
    lines = ollama_chat(server).text.splitlines()
    assert len(lines) == n_lines
    assert f'"{last}": ' in lines[-1]
    assert '"done": true' not in lines[-1]


def test_a_stall_ends_with_the_clients_patience(server):
    server.faults = [faults.stall(after=1)]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/chat", json={"model": "llama3", "messages": ASK}, timeout=0.2)


def test_nobody_is_there_after_it_stopped(server):
    server.stop()
    with pytest.raises(httpx.ConnectError):
        ollama_chat(server)


def test_scores_of_words_depend_on_the_words_alone():
    one, other = faults.score_of_words(ASK), faults.score_of_words([{"role": "user", "content": "Why?"}])
    assert one == faults.score_of_words([dict(ASK[0])]) != other
    assert 0 <= int(one) <= 100
