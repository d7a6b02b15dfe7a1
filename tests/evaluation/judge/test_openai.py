"""What a judge behind OpenAI's protocol is sent, and what is its own among the faults."""

import sys

import pytest

from scratchlm.core.errors import ConfigError, MissingDependencyError, ServiceError
from scratchlm.evaluation.judge.openai import OpenAIJudge
from scratchlm.evaluation.judge.service import JudgePatience
from tests.servers import judge_server as faults

ASK = [{"role": "system", "content": "You judge."}, {"role": "user", "content": "How good is it?"}]
QUICK = JudgePatience(connect_s=1, first_s=2, between_s=1, whole_s=5, attempts=2, backoff_s=0.01)


@pytest.fixture
def judge(judge_server):
    pytest.importorskip("openai")
    return OpenAIJudge("gpt-4o-mini", base_url=judge_server.openai_url, patience=QUICK)


def test_it_asks_for_a_streamed_and_repeatable_chat(judge, judge_server):
    assert judge.ask(ASK) == "85"
    [asked] = judge_server.asked
    assert (asked.path, asked.messages) == ("/v1/chat/completions", ASK)
    settings = {name: asked.body[name] for name in ("model", "stream", "seed", "temperature")}
    assert settings == {"model": "gpt-4o-mini", "stream": True, "seed": 123, "temperature": 0}
    assert asked.headers["authorization"] == "Bearer none"


def test_the_environment_names_address_and_key(judge_server, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_BASE_URL", judge_server.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    judge = OpenAIJudge("gpt-4o-mini", seed=7, patience=QUICK)
    assert judge.ask(ASK) == "85"
    [asked] = judge_server.asked
    assert (asked.headers["authorization"], asked.body["seed"]) == ("Bearer sk-secret", 7)
    assert "secret" not in judge.identity


def test_name_and_identity_tell_what_decides_a_reply(judge, judge_server):
    assert judge.name == "openai:gpt-4o-mini"
    assert judge.identity == f"openai:gpt-4o-mini at {judge_server.openai_url} seed=123 temperature=0"


def test_openai_itself_is_not_asked_without_a_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        OpenAIJudge("gpt-4o-mini")


def test_a_model_that_is_not_there_is_an_error_at_once(judge_server):
    pytest.importorskip("openai")
    judge = OpenAIJudge("gpt-9", base_url=judge_server.openai_url, patience=QUICK)
    with pytest.raises(ServiceError, match=r"404.*`gpt-9` does not exist.*model's name.*/v1"):
        judge.ask(ASK)
    assert len(judge_server.asked) == 1


def test_waiting_mends_no_empty_quota(judge, judge_server):
    body = b'{"error": {"message": "You exceeded your quota", "type": "x", "code": "insufficient_quota"}}'
    judge_server.every_time = faults.garbage(body, status=429)
    with pytest.raises(ServiceError, match="exceeded your quota"):
        judge.ask(ASK)
    assert len(judge_server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"data: <html>\n\n",
        b"data: []\n\n",
        b"data: 3\n\n",
        b'data: {"choices": 3}\n\n',
        b'data: {"choices": [{"delta": {"content": 3}}]}\n\n',
        b'data: {"message": {"content": "85"}, "done": true}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_events_of_no_protocol_are_an_error_at_once(judge, judge_server, body):
    judge_server.faults = [faults.garbage(body)]
    with pytest.raises(ServiceError, match="does not stream OpenAI's chat"):
        judge.ask(ASK)
    assert len(judge_server.asked) == 1
    assert judge.ask(ASK) == "85"
    judge_server.faults = [faults.garbage(body)]  # now the address is known to be right
    assert judge.ask(ASK) == "85"


@pytest.mark.parametrize("body", [b"<html>hello</html>\n", b"data: [DONE]\n\n", b"", b": a comment\n\n"])
def test_a_body_without_an_event_has_no_end(judge, judge_server, body):
    judge_server.faults = [faults.garbage(body)]
    assert judge.ask(ASK) == "85"
    assert len(judge_server.asked) == 2


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"scratchlm\[eval\]"):
        OpenAIJudge("any", base_url="http://localhost:1/v1")
