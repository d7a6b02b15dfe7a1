"""Every line of the table of faults, asked through both protocols of a real server on this machine."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from scratchlm.core.errors import ConfigError, ServiceError
from scratchlm.evaluation.judge.ollama import OllamaJudge
from scratchlm.evaluation.judge.openai import OpenAIJudge
from scratchlm.evaluation.judge.service import (
    OPENAI_URL,
    JudgePatience,
    ServiceJudge,
    ollama_address,
    openai_address,
    stream_ended_early,
)
from tests.servers import judge_server as faults

ASK = [{"role": "user", "content": "How good is it?"}]
QUICK = JudgePatience(connect_s=1, first_s=2, between_s=1, whole_s=5, attempts=3, backoff_s=0.01)


@pytest.fixture(params=["ollama", "openai"])
def judge_of(request, judge_server):
    """A judge with some patience, asked through either protocol."""
    pytest.importorskip(request.param)

    def make(patience=QUICK):
        if request.param == "ollama":
            return OllamaJudge("llama3", base_url=judge_server.url, patience=patience)
        return OpenAIJudge("llama3", base_url=judge_server.openai_url, patience=patience)

    return make


def judge_that_yields(pieces, patience):
    """A judge whose service sends what this generator yields."""

    class Scripted(ServiceJudge):
        kind = "it"

        def _open_reply(self, messages):
            return pieces()

    return Scripted("model", address="here", options={}, patience=patience)


@pytest.mark.parametrize(
    "reply",
    [
        "85",
        "Well – I'd say:\n\nScore: 85/100 😀 ",
        "about forty",
        "NaN",
        "-5",
        "",
        "7.5",
        "9" * 100_000,
        "ab é " * 25_000,
    ],
)
def test_any_reply_comes_back_whole(judge_of, judge_server, reply):
    judge_server.faults = [faults.says(reply)]
    judge_server.piece_size = max(4, len(reply) // 500)
    assert judge_of().ask(ASK) == reply
    assert len(judge_server.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.refuses(500),
        faults.refuses(503, "overloaded"),
        faults.refuses(529),
        faults.refuses(408),
        faults.refuses(429, retry_after="0"),
        faults.reset(after=0),
        faults.reset(after=1),
        faults.cut(after=0),
        faults.cut(after=2),
        faults.error_inside("out of memory", after=1),
    ],
)
def test_what_may_pass_is_asked_again_and_nothing_of_it_is_kept(judge_of, judge_server, fault):
    judge_server.reply = lambda messages: "a longer reply"
    judge_server.faults = [fault, fault]
    assert judge_of().ask(ASK) == "a longer reply"
    assert len(judge_server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (faults.refuses(500, "model requires more memory"), "status 500: .*model requires more memory"),
        (faults.refuses(429, "slow down", retry_after="0"), "429: .*slow down"),
        (faults.reset(after=1), "connection to .* failed"),
        (faults.cut(after=1), "stopped before its end"),
        (faults.error_inside("out of memory"), "error out of memory"),
    ],
)
def test_what_does_not_pass_is_a_service_error_after_the_last_attempt(judge_of, judge_server, fault, found):
    judge_server.every_time = fault
    with pytest.raises(ServiceError, match=f"{found}.*Tried 3 times"):
        judge_of().ask(ASK)
    assert len(judge_server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (faults.refuses(400, "bad options"), "400: .*bad options"),
        (faults.refuses(401, "who are you"), "401: .*who are you"),
        (faults.refuses(429, "busy", retry_after="9999"), "asks to wait 9999 s"),
        (faults.ends_by("length"), "cut off for the reason 'length'.*context"),
    ],
)
def test_what_would_happen_again_is_not_asked_again(judge_of, judge_server, fault, found):
    judge_server.every_time = fault
    with pytest.raises(ServiceError, match=found):
        judge_of().ask(ASK)
    assert len(judge_server.asked) == 1


def test_the_wait_is_the_one_that_the_server_asks_for(judge_of, judge_server):
    judge_server.faults = [faults.refuses(429, retry_after="1")]
    started_at_s = time.monotonic()
    assert judge_of().ask(ASK) == "85"
    assert 1.0 <= time.monotonic() - started_at_s < 4.0


def test_waits_double_up_to_the_longest(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    patience = dataclasses.replace(QUICK, attempts=5, backoff_s=1.0, longest_wait_s=3.0)

    def broken():
        yield "8"
        raise stream_ended_early("it")

    with pytest.raises(ServiceError, match="Tried 5 times"):
        judge_that_yields(broken, patience).ask(ASK)
    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_slow_first_words_are_waited_for(judge_of, judge_server):
    judge_server.faults = [faults.slow_first(0.7)]
    patience = dataclasses.replace(QUICK, between_s=0.5)
    assert judge_of(patience).ask(ASK) == "85"
    assert len(judge_server.asked) == 1


def test_first_words_that_do_not_come_are_given_up(judge_of, judge_server):
    judge_server.faults = [faults.slow_first(20)]
    patience = dataclasses.replace(QUICK, connect_s=0.1, first_s=0.9)
    assert judge_of(patience).ask(ASK) == "85"
    assert len(judge_server.asked) == 2


def test_a_pause_inside_a_reply_has_a_limit_of_its_own(judge_of, judge_server):
    judge_server.every_time = faults.stall(after=2)
    judge_server.reply = lambda messages: "a longer reply"
    patience = dataclasses.replace(QUICK, first_s=20, between_s=0.2, whole_s=60, attempts=2)
    started_at_s = time.monotonic()
    with pytest.raises(
        ServiceError, match=r"paused for more than 0\.2 s \([48] bytes.*between_s.*Tried 2 times"
    ):
        judge_of(patience).ask(ASK)
    assert time.monotonic() - started_at_s < 5


def test_a_reply_that_does_not_end_is_given_up(judge_of, judge_server):
    judge_server.every_time = faults.slow_between(0.1)
    judge_server.reply = lambda messages: "on and on " * 100
    patience = dataclasses.replace(QUICK, connect_s=0.1, whole_s=0.6, attempts=1)
    with pytest.raises(ServiceError, match=r"did not finish its reply within 0\.6 s.*whole_s"):
        judge_of(patience).ask(ASK)


def test_a_reply_beyond_the_bound_is_cut_off(judge_of, judge_server):
    judge_server.reply = lambda messages: "9" * 5000
    patience = dataclasses.replace(QUICK, max_reply_bytes=4999)
    with pytest.raises(ServiceError, match="longer than 4,999 bytes"):
        judge_of(patience).ask(ASK)
    assert judge_of(dataclasses.replace(QUICK, max_reply_bytes=5000)).ask(ASK) == "9" * 5000
    assert len(judge_server.asked) == 2


def test_nobody_there_is_said_at_once(judge_of, judge_server):
    judge_server.stop()
    started_at_s = time.monotonic()
    patience = dataclasses.replace(QUICK, backoff_s=20)
    with pytest.raises(ServiceError, match="cannot be reached: "):
        judge_of(patience).ask(ASK)
    assert time.monotonic() - started_at_s < 5


def test_who_has_replied_before_may_be_restarting(judge_of, judge_server):
    judge = judge_of()
    judge.ask(ASK)
    judge_server.stop()
    with pytest.raises(ServiceError, match="Tried 3 times"):
        judge.ask(ASK)


def test_a_judge_that_came_back_is_asked_again(judge_of, judge_server):
    judge = judge_of(dataclasses.replace(QUICK, attempts=9, backoff_s=0.05))
    judge.ask(ASK)
    port = judge_server.server_address[1]
    judge_server.stop()
    replies: list[str] = []
    asking = threading.Thread(target=lambda: replies.append(judge.ask(ASK)))
    asking.start()
    time.sleep(0.2)
    with faults.JudgeServer(lambda messages: "86", port=port):
        asking.join(20)
    assert replies == ["86"]


def test_several_threads_get_each_its_own_reply(judge_of, judge_server):
    judge_server.reply = lambda messages: messages[0]["content"][::-1]
    judge_server.faults = [faults.reset(), faults.slow_first(0.2), None, faults.cut(), faults.refuses(500)]
    judge = judge_of(dataclasses.replace(QUICK, attempts=6))
    words = [f"words number {n}" for n in range(24)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda word: judge.ask([{"role": "user", "content": word}]), words))
    assert replies == [word[::-1] for word in words]
    assert judge_server.most_at_once > 1


def test_an_abandoned_reply_is_hung_up(judge_of, judge_server):
    judge_server.reply = lambda messages: "on and on " * 1000
    judge_server.every_time = faults.slow_between(0.02)
    with pytest.raises(ServiceError):
        judge_of(dataclasses.replace(QUICK, connect_s=0.1, whole_s=0.3, attempts=1)).ask(ASK)
    for _ in range(100):
        if judge_server.n_open == 0:
            break
        time.sleep(0.05)
    assert judge_server.n_open == 0


@pytest.mark.parametrize("setting", ["connect_s", "attempts", "max_reply_bytes"])
def test_no_patience_is_no_setting(setting):
    with pytest.raises(ConfigError, match=f"{setting} must be above 0, got 0"):
        JudgePatience(**{setting: 0})


def test_a_bug_in_the_listening_thread_does_not_hang(monkeypatch):
    bugs: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", bugs.append)

    def buggy():
        yield "8"
        raise AssertionError("a bug")

    with pytest.raises(ServiceError, match="ended because of a bug"):
        judge_that_yields(buggy, QUICK).ask(ASK)
    for thread in threading.enumerate():
        if thread.name.startswith("asking it:"):
            thread.join(5)
    assert [bug.exc_type for bug in bugs] == [AssertionError]


AS_OLLAMA_READS_THEM = [  # the examples of `_parse_host` in Ollama's own client
    "1.2.3.4",
    "1.2.3.4:56789",
    "http://1.2.3.4",
    "https://1.2.3.4",
    "https://1.2.3.4:56789",
    "example.com",
    "example.com:56789",
    "http://example.com",
    "https://example.com",
    "example.com/",
    "example.com:56789/",
    "example.com/path",
    "https://example.com:56789/path/",
    "[0001:002:003:0004::1]",
    "[0001:002:003:0004::1]:56789",
    "https://[0001:002:003:0004::1]:56789/path/",
]


@pytest.mark.parametrize("given", AS_OLLAMA_READS_THEM)
def test_addresses_mean_what_they_mean_to_ollamas_client(given, monkeypatch):
    client = pytest.importorskip("ollama._client")
    assert ollama_address(given) == client._parse_host(given)
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address() == client._parse_host(given)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "http://localhost:11434"),
        (":56789", "http://localhost:56789"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:11434"),
        ("[::]:8080", "http://[::1]:8080"),
        (' "judge" ', "http://judge:11434"),
        ("http://localhost:11434/api/chat", "http://localhost:11434"),
        ("judge/behind/api/chat", "http://judge:11434/behind"),
    ],
)
def test_what_a_server_listens_on_becomes_where_it_is_reached(given, address, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", given)
    assert ollama_address() == address
    assert ollama_address(given) == address


@pytest.mark.parametrize(
    "given", ["host:port", "ftp://host", "host:99999", "[::1", "a b", "host?x=1", "host:-1"]
)
def test_what_is_no_address_is_a_config_error(given, monkeypatch):
    with pytest.raises(ConfigError, match="--base-url must be a host"):
        ollama_address(given)
    monkeypatch.setenv("OLLAMA_HOST", given)
    with pytest.raises(ConfigError, match="OLLAMA_HOST must be a host"):
        ollama_address()


def test_openais_address_is_the_one_given_then_the_environments_then_its_own(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert openai_address() == OPENAI_URL
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1/")
    assert openai_address() == "http://127.0.0.1:8000/v1"
    assert openai_address("https://judge.example/v1/chat/completions") == "https://judge.example/v1"


@pytest.mark.parametrize("given", ["", "localhost:8000/v1", "http://", "http://host:x/v1", "file:///v1"])
def test_openais_address_is_a_url(given):
    with pytest.raises(ConfigError, match="http://localhost:8000/v1"):
        openai_address(given)


@pytest.mark.parametrize("read", [ollama_address, openai_address])
def test_a_password_in_an_address_is_refused_and_never_shown(read):
    for given in ("http://me:secret@host/v1", "http://me:secret@host:x/v1"):
        with pytest.raises(ConfigError) as caught:
            read(given)
        assert "secret" not in str(caught.value)
