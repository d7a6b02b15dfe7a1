"""A judge's name leads to that judge, with the settings given."""

import pytest

from scratchlm.core.errors import CheckpointError, ConfigError
from scratchlm.evaluation.judge.open_judge import judge_named
from scratchlm.evaluation.judge.service import JudgePatience


@pytest.mark.parametrize(("kind", "path"), [("ollama", ""), ("openai", "/v1")])
def test_a_service_is_asked_where_it_is_said_to_be(kind, path, judge_server):
    pytest.importorskip(kind)
    judge = judge_named(f"{kind}:llama3", base_url=judge_server.url + path, seed=9)
    assert judge.name == f"{kind}:llama3"
    assert "seed=9" in judge.identity
    assert judge.ask([{"role": "user", "content": "?"}]) == "85"


def test_a_models_tag_belongs_to_its_name():
    pytest.importorskip("ollama")
    assert judge_named(" ollama:hf.co/me/judge:Q4_K_M ").name == "ollama:hf.co/me/judge:Q4_K_M"
    assert "num_ctx=8192" in judge_named("ollama:llama3", num_ctx=8192).identity


def test_a_local_judge_is_opened_at_once(tmp_path):
    with pytest.raises(CheckpointError):
        judge_named(f"local:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("", "known are"),
        ("olama:llama3", "did you mean 'ollama'"),
        ("llama3", "did you mean 'ollama'"),
        ("offline", "known are"),
        ("ollama", "name the model"),
        ("openai: ", "name the model"),
        ("https://judge", "known are"),
    ],
)
def test_what_names_no_judge_lists_the_forms(spec, hint):
    forms = r"ollama:MODEL, openai:MODEL, local:PATH or offline, got"
    with pytest.raises(ConfigError, match=f"{forms} {spec!r}: {hint}"):
        judge_named(spec)


def test_a_setting_without_a_use_is_refused():
    with pytest.raises(ConfigError, match="openai:m has no setting num_ctx, only base_url, patience, seed"):
        judge_named("openai:m", num_ctx=10)
    with pytest.raises(ConfigError, match="has no setting base_url, patience, only device, max_new_tokens"):
        judge_named("local:m", base_url="http://localhost", patience=JudgePatience())
