"""Many requests at once: admission, disconnects, failures and the end, with a real server."""

import json
import os
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import psutil
import pytest

from scratchlm.core.errors import DataError
from scratchlm.generation.engine import Engine
from scratchlm.serving.settings import ServeSettings
from scratchlm.serving.worker import Worker
from tests.serving.conftest import running, served_models, tiny_lm

STREAM = {
    "model": "base",
    "prompt": "once upon a time",
    "max_tokens": 40,
    "min_new_tokens": 40,
    "stream": True,
}
LONG_CONTEXT = 4096
ENDLESS = {"model": "long", "prompt": "a cat", "max_tokens": 4000, "min_new_tokens": 4000, "stream": True}


@pytest.fixture(scope="module")
def long_models(small_tokenizer, tmp_path_factory):
    """A model whose answers take long."""
    return {"long": tiny_lm(small_tokenizer, tmp_path_factory.mktemp("long"), context_length=LONG_CONTEXT)}


def begin(server, body) -> socket.socket:
    """Send a request on a connection of its own; the caller closes it."""
    host, port = server.url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(head.encode() + content)
    return connection


def engines(server) -> list[Engine]:
    return [one.engine for one in server.service.worker._running.values()]


def test_texts_of_many_clients_are_those_of_each_alone(server):
    bodies = [
        STREAM | {"seed": i, "prompt": prompt}
        for i, prompt in enumerate(["a cat", "the dog sat", "Q: who?"] * 8)
    ]

    def streamed(body) -> str:
        chunks = [
            json.loads(line[6:]) for line in server.stream("/v1/completions", body) if line != "data: [DONE]"
        ]
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        return "".join(chunk["choices"][0]["text"] for chunk in chunks)

    alone = [
        server.post("/v1/completions", body | {"stream": False}).json()["choices"][0]["text"]
        for body in bodies
    ]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(streamed, bodies)) == alone
    assert server.wait_until_idle()


def test_beyond_the_queue_a_request_is_told_to_come_back(long_models):
    settings = ServeSettings(n_slots=2, max_waiting=2)
    body = ENDLESS
    with running(served_models(long_models), settings) as server:
        open_ones = [begin(server, body) for _ in range(4)]
        until = time.monotonic() + 5
        while server.service.n_open < 4 and time.monotonic() < until:
            time.sleep(0.01)
        full = server.post("/v1/completions", body)
        assert full.status_code == 503
        assert int(full.headers["retry-after"]) > 0
        assert full.json()["error"]["code"] == "queue_full"
        assert server.get("/health").status_code == 200
        too_many = server.post("/v1/completions", body | {"n": 5})
        assert too_many.status_code == 400
        assert "at most 4 texts" in too_many.json()["error"]["message"]
        for connection in open_ones:
            connection.close()
        assert server.wait_until_idle()
        assert (
            server.post(
                "/v1/completions", body | {"max_tokens": 2, "min_new_tokens": 0, "stream": False}
            ).status_code
            == 200
        )


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_text_at_once(long_models, stream, monkeypatch):
    n_when_cancelled: list[int] = []
    cancel = Worker.cancel

    def counted(worker, job):
        cancel(worker, job)
        [running_now] = worker._running.values()
        n_when_cancelled.append(running_now.engine.stats.generated_tokens)

    monkeypatch.setattr(Worker, "cancel", counted)
    with running(served_models(long_models)) as server:
        [engine] = engines(server)
        connection = begin(server, ENDLESS | {"stream": stream})
        until = time.monotonic() + 10
        while engine.stats.generated_tokens == 0 and time.monotonic() < until:
            time.sleep(0.005)
        connection.close()
        assert server.wait_until_idle(10)
        n_generated = engine.stats.generated_tokens
        assert 0 < n_generated < ENDLESS["max_tokens"]
        assert n_generated - n_when_cancelled[0] <= 1  # the step that had begun
        time.sleep(0.2)
        assert engine.stats.generated_tokens == n_generated


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_disconnects_at_random_points_leave_nothing_behind(long_models, n):
    draw = random.Random(0)
    with running(served_models(long_models)) as server:
        server.post("/v1/completions", {"model": "long", "prompt": "a", "max_tokens": 2})
        assert server.wait_until_idle()
        process = psutil.Process()
        before = process.num_threads(), process.num_fds()
        for i in range(n):
            length = draw.choice([1, 5, 200, 1500])
            body = {
                "model": "long",
                "prompt": "a cat",
                "max_tokens": length,
                "stream": i % 3 > 0,
                "n": 1 + i % 2,
            }
            with begin(server, body) as connection:
                time.sleep(draw.choice([0, 0, 0.001, 0.01, 0.03]))
                if i % 5 == 0:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        assert server.wait_until_idle(2.0)
        until = time.monotonic() + 2
        while time.monotonic() < until and (process.num_threads(), process.num_fds()) > before:
            time.sleep(0.02)
        assert process.num_threads() <= before[0] + 1  # the second thread that encodes may have begun
        assert process.num_fds() <= before[1]
        assert server.service.n_open == 0


def test_a_failure_in_a_step_is_that_of_the_newest_request(long_models, monkeypatch):
    """A text that breaks the shared step, for example for want of memory, does not end the others."""
    step = Engine.step

    def failing(engine):
        if any(request.config.seed == 666 for request in engine._running):
            raise MemoryError("cannot allocate")
        return step(engine)

    monkeypatch.setattr(Engine, "step", failing)
    body = {"model": "long", "prompt": "a cat", "max_tokens": 600, "min_new_tokens": 600, "temperature": 0}
    with running(served_models(long_models)) as server, ThreadPoolExecutor(3) as pool:
        good = [pool.submit(server.post, "/v1/completions", body) for _ in range(2)]
        time.sleep(0.15)
        bad = server.post("/v1/completions", body | {"seed": 666})
        assert bad.status_code == 500
        assert bad.json()["error"]["code"] == "out_of_memory"
        answers = [one.result() for one in good]
        assert [one.status_code for one in answers] == [200, 200]
        assert answers[0].json()["choices"] == answers[1].json()["choices"]
        assert answers[0].json()["usage"]["completion_tokens"] == 600
        assert server.wait_until_idle()


def test_a_bug_in_one_request_is_its_500_and_shows_no_details(server, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "add", broken)
        answer = server.post("/v1/completions", STREAM)
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert server.post("/v1/completions", STREAM | {"stream": False}).status_code == 200


def test_a_text_that_fails_midway_ends_its_stream_with_an_error(server, monkeypatch):
    take = Engine.step

    def spoilt(engine):
        events = take(engine)
        for request in engine._running:
            if request.n_new == 3 and request.config.seed == 667:
                events = [request.fail(DataError("scores are NaN; mend the weights."))]
        engine._running = [request for request in engine._running if request.finished_by is None]
        return events

    monkeypatch.setattr(Engine, "step", spoilt)
    lines = server.stream("/v1/completions", STREAM | {"seed": 667})
    assert "scores are NaN" in json.loads(lines[-2].removeprefix("data: "))["error"]["message"]
    assert lines[-1] == "data: [DONE]"
    chat = {"model": "chat", "messages": [{"role": "user", "content": "who?"}], "options": {"seed": 667}}
    assert "scores are NaN" in json.loads(server.stream("/api/chat", chat)[-1])["error"]
    assert server.wait_until_idle()


def test_health_fails_when_the_worker_is_stuck_or_gone(language_models, monkeypatch):
    models = served_models({"base": language_models["base"]})
    with running(models, ServeSettings(stuck_after_s=0.6)) as server:
        assert server.get("/health").status_code == 200
        stuck = threading.Event()
        monkeypatch.setattr(Engine, "step", lambda engine: stuck.wait(20) and [])
        begin(server, STREAM).close()
        time.sleep(1.2)
        answer = server.get("/health")
        assert (answer.status_code, answer.json()) == (
            503,
            {"error": "the worker does not respond; restart the server."},
        )
        monkeypatch.undo()
        stuck.set()
        until = time.monotonic() + 5
        while server.get("/health").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert server.get("/health").status_code == 200
        server.service.worker.stop()
        assert server.get("/health").status_code == 503
        assert server.post("/v1/completions", STREAM).status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert server.post("/v1/embeddings", {"model": "base", "input": "a"}).status_code == 503


def test_texts_that_do_not_end_in_the_drain_time_fail_properly(long_models):
    with running(served_models(long_models)) as server:
        connection = begin(server, ENDLESS)
        time.sleep(0.2)
        server.service.worker.drain(0.2)
        received = b""
        while b"[DONE]" not in received and (chunk := connection.recv(65536)):
            received += chunk
        connection.close()
        assert b"the server is shutting down" in received


def test_no_connection_leaves_this_machine(server):
    """Nothing that the server does opens a connection; only its clients' own are there."""
    server.post("/v1/completions", STREAM | {"stream": False})
    server.post("/api/tokenize", {"kind": "word", "text": "a"})
    found = psutil.Process(os.getpid()).net_connections(kind="inet")
    assert all(one.raddr.ip in ("127.0.0.1", "::1") for one in found if one.raddr)


@pytest.mark.parametrize(("limit", "n_threads"), [(4_000_000, 1), (0, None)])
def test_a_small_model_runs_on_one_thread(language_models, monkeypatch, limit, n_threads):
    given: list[int | None] = []
    begin_engine = Engine.__init__

    def recorded(engine, *args, **options):
        given.append(options["n_threads"])
        begin_engine(engine, *args, **options)

    monkeypatch.setattr(Engine, "__init__", recorded)
    monkeypatch.setattr("scratchlm.serving.worker.SMALL_MODEL", limit)
    with running(served_models({"base": language_models["base"]})) as server:
        assert server.post("/v1/completions", STREAM | {"stream": False}).status_code == 200
    assert given == [n_threads]
