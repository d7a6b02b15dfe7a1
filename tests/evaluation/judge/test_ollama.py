"""What an Ollama judge sends, and what is its own among the faults."""

import sys

import pytest

from scratchlm.core.errors import MissingDependencyError, ServiceError
from scratchlm.evaluation.judge.ollama import OllamaJudge, chat_pieces, ollama_answers
from scratchlm.evaluation.judge.service import JudgePatience
from tests.servers import judge_server as faults

ASK = [{"role": "system", "content": "You judge."}, {"role": "user", "content": "How good is it?"}]
QUICK = JudgePatience(connect_s=1, first_s=2, between_s=1, whole_s=5, attempts=2, backoff_s=0.01)


@pytest.fixture
def judge(judge_server):
    pytest.importorskip("ollama")
    return OllamaJudge("llama3", base_url=judge_server.url, patience=QUICK)


def test_it_asks_ollamas_chat_as_the_book_does(judge, judge_server):
    assert judge.ask(ASK) == "85"
    [asked] = judge_server.asked
    assert (asked.path, asked.messages, asked.body["model"], asked.body["stream"]) == (
        "/api/chat",
        ASK,
        "llama3",
        True,
    )
    assert asked.body["options"] == {"seed": 123, "temperature": 0, "num_ctx": 2048}


def test_the_environment_names_the_address(judge_server, monkeypatch):
    pytest.importorskip("ollama")
    monkeypatch.setenv("OLLAMA_HOST", judge_server.url.removeprefix("http://"))
    judge = OllamaJudge("llama3", seed=7, num_ctx=4096, patience=QUICK)
    assert judge.ask(ASK) == "85"
    assert judge_server.asked[0].body["options"] == {"seed": 7, "temperature": 0, "num_ctx": 4096}


def test_name_and_identity_tell_what_decides_a_reply(judge, judge_server):
    assert judge.name == "ollama:llama3"
    assert judge.identity == f"ollama:llama3 at {judge_server.url} seed=123 temperature=0 num_ctx=2048"


def test_a_model_that_was_not_pulled_is_named_with_the_command(judge_server):
    pytest.importorskip("ollama")
    judge = OllamaJudge("llama9:8b", base_url=judge_server.url, patience=QUICK)
    with pytest.raises(ServiceError, match=r"model 'llama9:8b' not found.*`ollama pull llama9:8b`"):
        judge.ask(ASK)
    assert len(judge_server.asked) == 1


def test_an_address_of_somebody_else_is_doubted(judge_server):
    pytest.importorskip("ollama")
    with pytest.raises(ServiceError, match=r"404.*is that Ollama's address\?"):
        OllamaJudge("llama3", base_url=f"{judge_server.url}/elsewhere", patience=QUICK).ask(ASK)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>hello</html>\n",
        b"[]\n",
        b"3\n",
        b"\n",
        b"\xff\xfe\n",
        b'{"message": {"content": 3}}\n',
        b'{"message": 3}\n',
        b'{"choices": []}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_bytes_of_no_protocol_are_an_error_at_once(judge, judge_server, body):
    judge_server.faults = [faults.garbage(body)]
    with pytest.raises(ServiceError, match="does not stream Ollama's chat"):
        judge.ask(ASK)
    assert len(judge_server.asked) == 1
    assert judge.ask(ASK) == "85"
    judge_server.faults = [faults.garbage(body)]  # now the address is known to be right
    assert judge.ask(ASK) == "85"


def test_a_request_that_does_not_fit_the_context_is_not_judged(judge, judge_server):
    long = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(
        ServiceError, match=r"did not fit num_ctx=2048 and was truncated to 1026 tokens; raise --num-ctx"
    ):
        judge.ask(long)
    assert len(judge_server.asked) == 1
    assert OllamaJudge("llama3", base_url=judge_server.url, num_ctx=8192, patience=QUICK).ask(long) == "85"


@pytest.mark.parametrize(
    ("n_prompt", "num_ctx", "is_cut"),
    [
        (16386, 32768, True),  # the measured ones of Ollama's issues
        (16387, 32768, True),
        (32770, 65536, True),
        (65530, 65536, False),
        (2050, 4096, True),
        (2048, 2048, True),  # as older versions cut
        (26, 2048, False),
        (1024, 2048, False),
        (1029, 2048, False),
    ],
)
def test_a_cut_request_is_known_by_its_number_of_tokens(n_prompt, num_ctx, is_cut):
    end = {"message": {"content": "85"}, "done": True, "prompt_eval_count": n_prompt}
    if is_cut:
        with pytest.raises(ServiceError, match=f"truncated to {n_prompt} tokens"):
            list(chat_pieces([end], who="it", num_ctx=num_ctx))
    else:
        assert list(chat_pieces([end], who="it", num_ctx=num_ctx)) == ["85"]


def test_thoughts_are_no_part_of_a_reply():
    parts = [
        {"message": {"role": "assistant", "content": "", "thinking": "Score: 3?"}, "done": False},
        {"message": {"role": "assistant", "content": "85"}, "done": False},
        {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
        {"message": {"role": "assistant", "content": "after the end"}, "done": False},
    ]
    assert "".join(chat_pieces(parts, who="it")) == "85"


def test_it_is_there_when_the_port_says_so(judge_server):
    assert ollama_answers(judge_server.url)
    assert not ollama_answers(f"{judge_server.url}/elsewhere")
    judge_server.stop()
    assert not ollama_answers(judge_server.url)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ollama", None)
    with pytest.raises(MissingDependencyError, match=r"scratchlm\[eval\]"):
        OllamaJudge("llama3")
