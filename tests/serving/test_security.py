"""Who may use the server, and what it refuses before any model runs."""

import contextlib
import json
import select
import socket
import time

import httpx
import psutil
import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.serving.security import CSP
from scratchlm.serving.settings import ServeSettings, is_loopback
from tests.serving.conftest import running, served_models

TOKEN = "correct-horse-battery"
BODY = {"model": "base", "prompt": "a cat", "max_tokens": 1}
SPOOFED_HOSTS = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io",
    "evil.example#localhost", "localhost:8000@evil.example", "localhost:evil", "localhost:8000:9", "127.0.0.2",
    "0.0.0.0", "127.1", "2130706433", "0x7f000001", "017700000001", "[::]", "[::ffff:127.0.0.1]", "[fe80::1]",
    "::1", "[::1", "::1]", "localhost.", "LOCALHOST.evil", "local host", "localhost/", "localhost?x", "localhost,evil",
    "http://localhost", "a" * 300, "*", "%6cocalhost", "localhost%00", "xn--localhost", "127.0.0.1 evil",
    "user@localhost", "localhost\\evil", "169.254.169.254", "metadata.google.internal", "", "-",
]  # fmt: skip
FOREIGN_ORIGINS = [
    "http://evil.example", "https://evil.example", "null", "", "file://", "http://localhost", "http://localhost:1",
    "http://127.0.0.1", "http://127.0.0.1:1", "https://127.0.0.1.evil.example", "http://127.0.0.1.nip.io",
    "http://localhost.evil.example", "http://[::1]", "http://0.0.0.0", "chrome-extension://abc",
    "moz-extension://abc", "data:", "blob:http://localhost", "http://", "//localhost", "javascript:0",
    "http://localhost:8000.evil.example", "http://evil.example/127.0.0.1", "http://evil.example#", "about:blank",
    "http://user@evil.example", "http://127.0.0.1@evil.example", "ftp://localhost", "ws://evil.example",
    "http://LOCALHOST", "http://localhost:80", "https://localhost", "http://evil", "http://evil:8000",
    "http://169.254.169.254", "http://10.0.0.1", "http://192.168.0.1:8000", "capacitor://localhost",
    "ionic://localhost", "tauri://localhost",
]  # fmt: skip


def raw(server, request: bytes, *, wait_s: float = 10.0) -> bytes:
    """What the server answers to these bytes until it closes the connection or says nothing more."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def request_bytes(server, *lines: str, body: bytes = b"", host: str | None = None) -> bytes:
    host = server.url.removeprefix("http://") if host is None else host
    head = ["POST /v1/completions HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_another_address_needs_a_token():
    for host in ("0.0.0.0", "192.168.0.10", "::", "example.org"):
        with pytest.raises(ConfigError, match="the server needs a token"):
            ServeSettings(host=host)
        assert ServeSettings(host=host, token=TOKEN).host == host
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    with pytest.raises(ConfigError, match="at least 16 ASCII characters"):
        ServeSettings(token="short")


@pytest.mark.parametrize("host", SPOOFED_HOSTS)
def test_a_spoofed_host_is_refused(server, host):
    answer = raw(
        server,
        request_bytes(server, "Content-Type: application/json", "Content-Length: 2", body=b"{}", host=host),
    )
    assert status_of(answer) in (400, 403), answer[:200]
    assert server.get("/health", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LocalHost:9000", "127.0.0.1:1"])
def test_a_name_of_this_machine_is_accepted_on_any_port(server, host):
    assert server.get("/health", headers={"host": host}).status_code == 200


def test_two_host_headers_are_refused(server):
    assert status_of(raw(server, request_bytes(server, "Host: localhost"))) == 400


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_origin_is_refused(server, origin):
    for answer in (
        server.post("/v1/completions", BODY, headers={"origin": origin}),
        server.get("/v1/models", headers={"origin": origin}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_of_the_server_itself_is_accepted(server):
    assert server.post("/v1/completions", BODY, headers={"origin": server.url}).status_code == 200
    headers = {"sec-fetch-site": "same-origin", "origin": server.url}
    assert server.post("/v1/completions", BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_may_link_here_but_not_load_from_here(server, site):
    assert (
        server.get("/health", headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}).status_code
        == 403
    )
    assert (
        server.get("/health", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code
        == 200
    )


def test_a_named_origin_may_use_the_api(language_models):
    settings = ServeSettings(allow_origins=("http://localhost:3000",), allow_hosts=("models.example",))
    with running(served_models(language_models), settings) as server:
        for origin, allowed in (("http://localhost:3000", True), ("http://localhost:3001", False)):
            answer = server.post(
                "/v1/completions", BODY, headers={"origin": origin, "host": "models.example"}
            )
            assert answer.status_code == (200 if allowed else 403)
            assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
        preflight = httpx.options(
            f"{server.url}/v1/models", headers={"origin": "http://localhost:3000"}, trust_env=False
        )
        assert (preflight.status_code, preflight.headers["access-control-allow-methods"]) == (
            204,
            "GET, POST",
        )


def test_the_token_is_needed_for_the_api_only(language_models, caplog):
    with running(served_models(language_models), ServeSettings(token=TOKEN)) as server:
        assert server.get("/health").status_code == 200
        for header in ({}, {"authorization": "Bearer wrong-token-of-some-length"}, {"authorization": TOKEN}):
            for answer in (
                server.get("/v1/models", headers=header),
                server.post("/api/chat", {}, headers=header),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in answer.text
        assert server.get("/metrics").status_code == 401
        assert server.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert server.get(f"/v1/models?token={TOKEN}").status_code == 401
    assert TOKEN not in caplog.text


def test_every_answer_has_the_security_headers(server):
    for answer in (
        server.get("/health"),
        server.get("/nope"),
        server.post("/v1/completions", {}),
        server.post("/api/chat", {}),
    ):
        assert answer.headers["content-security-policy"] == CSP
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers
    assert "unsafe" not in CSP


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "application/jsonx",
        "application/json; charset=utf-16",
    ],
)
def test_a_body_must_be_json(server, kind):
    answer = httpx.post(
        f"{server.url}/v1/completions", content=b"{}", headers={"content-type": kind}, trust_env=False
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON body is missing"),
        (b"[]", "dictionary"),
        (b"{", "not JSON"),
        (b'{"model": "base", "prompt": NaN}', "finite"),
        (b'{"model": "base", "prompt": "a", "temperature": 1e999}', "finite"),
        (b'{"model": "base", "prompt": "a", "temperature": -Infinity}', "finite"),
        (b'{"model": "base", "prompt": "a", "max_tokens": 99999999999999999999999}', "20 digits"),
        (b'{"model": "base", "prompt": "a", "max_tokens": 9999999999}', "max_tokens"),
        (b'{"model": "base", "prompt": "\\ud800"}', "surrogate"),
        (b'{"model": "base", "prompt": "\xff"}', "UTF-8"),
        (b'{"model": "base", "model": "chat", "prompt": "a"}', "given twice"),
        (b'{"model": "base", "prompt": "a", "logit_bias": ' + b"[" * 70 + b"]" * 70 + b"}", "64 levels"),
        (b'{"model": "base", "prompt": ' + b"[" * 200_000, "levels"),
        (b'{"model": "base", "prompt": "a", "stop": [' + b'"x",' * 100_000 + b'"x"]}', "stop"),
        (b"\xef\xbb\xbf{}", "BOM"),
    ],
)  # fmt: skip
def test_a_hostile_body_is_refused_with_the_reason(server, body, message):
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers, trust_env=False)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert len(answer.text) < 1000


def test_a_long_body_is_refused_by_its_length_or_its_bytes(server):
    lines = ["Content-Type: application/json"]
    assert status_of(raw(server, request_bytes(server, *lines, "Content-Length: 99999999"))) == 413
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = raw(server, request_bytes(server, *lines, "Transfer-Encoding: chunked", body=chunk * 40))
    assert status_of(answer) == 413


@pytest.mark.parametrize("reads", [True, False], ids=["reads the answer", "only sends"])
def test_a_gigabyte_in_chunks_is_refused_early_and_never_held(server, reads):
    """A client that reads sees the refusal at once; one that only sends is cut off, and others are served meanwhile."""
    host, port = server.url.removeprefix("http://").split(":")
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    chunk, process = b"10000\r\n" + b" " * 65536 + b"\r\n", psutil.Process()
    before, n_sent, answer = process.memory_info().rss, 0, b""
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        connection.sendall(request_bytes(server, *lines))
        with contextlib.suppress(ConnectionError):
            while n_sent < 1 << 30 and not (reads and select.select([connection], [], [], 0)[0]):
                connection.sendall(chunk)
                n_sent += 65536
                if n_sent % (64 << 20) == 0:
                    assert process.memory_info().rss - before < 32 << 20
                    assert server.get("/health").status_code == 200
            answer = connection.recv(65536)
    if reads:
        assert status_of(answer) == 413
        assert n_sent <= 64 << 20
    assert process.memory_info().rss - before < 32 << 20
    assert server.wait_until_idle()
    assert server.post("/v1/completions", BODY).status_code == 200


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: -1",),
        ("Content-Length: 2x",),
        ("Content-Length: 0x2",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked, identity",),
        ("X: a\x00b",),
        (": nameless",),
        ("X" * 40_000 + ": a",),
    ],
)
def test_smuggled_lengths_and_broken_headers_are_refused(server, lines):
    answer = raw(server, request_bytes(server, "Content-Type: application/json", *lines, body=b"{}"))
    assert status_of(answer) in (400, 501)


def test_length_and_chunks_together_are_read_as_chunks_and_never_as_two_requests(server):
    smuggled = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    lines = ("Content-Type: application/json", "Content-Length: 4", "Transfer-Encoding: chunked")
    answer = raw(server, request_bytes(server, *lines, body=smuggled))
    assert answer.count(b"HTTP/1.1") == 1
    assert status_of(answer) == 400


def test_slow_clients_are_disconnected_and_others_are_served(language_models):
    settings = ServeSettings(header_time_s=0.3, body_time_s=0.3)
    with running(served_models(language_models), settings) as server:
        started_s = time.monotonic()
        assert raw(server, b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n") == b""
        lines = ("Content-Type: application/json", "Content-Length: 100")
        assert status_of(raw(server, request_bytes(server, *lines, body=b"{"))) == 408
        assert time.monotonic() - started_s < 5
        assert server.post("/v1/completions", BODY).status_code == 200


STEPS = [
    "..", "../..", "..\\..", "%2e%2e", "%2e%2e%2f", "..%2f", "..%5c", "....//", ".%00.", "/", "//", "~", "file://",
    "\\\\host\\", "%c0%ae%c0%ae", "..;", "./.", "..%252f",
]  # fmt: skip
ENDS = [
    "etc/passwd", "etc/shadow", "proc/self/environ", "config.json", "pyproject.toml", ".env", "con", "nul", "a\x00b",
    "index.html", "manifest.json", "security.py", "runs/base", "base", "model.safetensors", "",
]  # fmt: skip
ODD = [
    "base/",
    "base\x00",
    "BASE",
    " base",
    "base ",
    "base:other",
    "${jndi:ldap://a}",
    "{{7*7}}",
    "base\n",
    "../base",
]
HOSTILE_NAMES = ODD + [
    f"{before}{step}{between}{end}"
    for end in ENDS
    for between in ("", "/", "\\", "//")
    for step in STEPS
    for before in ("", "base/")
]


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_name_becomes_a_path(server, every):
    """Names and paths that would leave a folder, or name a device, if a name ever became a path."""
    names = HOSTILE_NAMES[::every]
    assert len(HOSTILE_NAMES) > 2000
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        for name in names:
            answer = client.post("/v1/completions", json={"model": name, "prompt": "a"})
            assert answer.status_code == 404, name
            assert client.post("/api/show", json={"model": name}).status_code == 404, name
    for number, name in enumerate(names):
        quoted = "".join(c if c.isalnum() or c in "./%~-_" else f"%{ord(c):02x}" for c in name)
        place = ("/", "/v1/models/", "/api/runs/")[number % 3]
        answer = raw(
            server, f"GET {place}{quoted} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        is_page = place == "/" and quoted.strip("/.") in ("", "index.html")
        assert status_of(answer) in (400, 404, 405) or is_page, (place, name, answer[:100])


def test_a_model_is_found_only_by_its_exact_id(server):
    assert server.get("/v1/models/base").status_code == 200
    for name in ("BASE", "base/", "base%20", "base%00"):
        assert server.get(f"/v1/models/{name}").status_code == 404


def test_a_wrong_request_never_shows_a_path_of_this_machine(server, language_models):
    folder = str(language_models["base"].folder)
    for path, body in (
        ("/v1/completions", {"model": "nope", "prompt": "a"}),
        ("/v1/completions", {"model": "spam", "prompt": "a"}),
        ("/api/classify", {"model": "base", "texts": ["a"]}),
        ("/api/show", {"model": "base"}),
    ):
        assert folder not in server.post(path, body).text
    assert folder not in json.dumps(server.get("/api/tags").json())
