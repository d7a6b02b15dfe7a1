"""Where the services are looked for."""

from __future__ import annotations

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.evaluation.judge.addresses import OPENAI_URL, ollama_address, openai_address

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
    with pytest.raises(ConfigError, match="--base-url should be a host"):
        ollama_address(given)
    monkeypatch.setenv("OLLAMA_HOST", given)
    with pytest.raises(ConfigError, match="OLLAMA_HOST should be a host"):
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
