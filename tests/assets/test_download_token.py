"""$HF_TOKEN reaches huggingface.co over https and nobody else."""

import httpx
import pytest

from scratchlm.assets import download as download_module
from scratchlm.assets.download import Patience, download
from scratchlm.core.errors import DownloadError

HASTY = Patience(attempts=1)
TOKEN = "hf_secret"


@pytest.fixture
def hosts(monkeypatch):
    """Answers by host and path; remembers who was shown a token."""
    answers: dict[str, httpx.Response] = {}
    seen: list[tuple[str, str | None]] = []

    def answer(request):
        seen.append((str(request.url), request.headers.get("Authorization")))
        return answers.get(str(request.url), httpx.Response(200, stream=httpx.ByteStream(b"bytes")))

    monkeypatch.setattr(
        download_module, "_client", lambda patience: httpx.Client(transport=httpx.MockTransport(answer))
    )
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    return answers, seen


def moved(location):
    return httpx.Response(302, headers={"Location": location})


def test_the_token_goes_to_its_host(hosts, tmp_path):
    download(["https://huggingface.co/a/resolve/1/f"], tmp_path / "f")
    assert hosts[1] == [("https://huggingface.co/a/resolve/1/f", f"Bearer {TOKEN}")]


def test_without_a_token_nothing_is_sent(hosts, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    download(["https://huggingface.co/f"], tmp_path / "f")
    assert hosts[1] == [("https://huggingface.co/f", None)]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.test/f",
        "http://huggingface.co/f",
        "https://huggingface.co:8443/f",
        "https://huggingface.co.example.test/f",
        "https://evil-huggingface.co/f",
        "https://example.test/huggingface.co/f",
        "https://huggingface.co@example.test/f",
    ],
)
def test_no_other_address_sees_it(hosts, tmp_path, url):
    download([url], tmp_path / "f")
    assert [token for _, token in hosts[1] if token and TOKEN in token] == []


def test_a_redirect_to_another_host_loses_it(hosts, tmp_path):
    hosts[0]["https://huggingface.co/f"] = moved("https://cdn.example.test/f")
    download(["https://huggingface.co/f"], tmp_path / "f")
    assert hosts[1] == [("https://huggingface.co/f", f"Bearer {TOKEN}"), ("https://cdn.example.test/f", None)]


def test_a_redirect_from_another_host_does_not_win_it(hosts, tmp_path):
    hosts[0]["https://mirror.example.test/f"] = moved("https://huggingface.co/private/f")
    download(["https://mirror.example.test/f"], tmp_path / "f")
    assert [token for _, token in hosts[1]] == [None, None]


def test_a_redirect_within_the_host_keeps_it(hosts, tmp_path):
    hosts[0]["https://huggingface.co/f"] = moved("/g")
    download(["https://huggingface.co/f"], tmp_path / "f")
    assert [token for _, token in hosts[1]] == [f"Bearer {TOKEN}"] * 2


def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(hosts, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_se\ncret")
    with pytest.raises(
        DownloadError, match="HF_TOKEN contains characters that are not printable ASCII"
    ) as caught:
        download(["https://huggingface.co/f"], tmp_path / "f", patience=HASTY)
    assert "cret" not in str(caught.value)
