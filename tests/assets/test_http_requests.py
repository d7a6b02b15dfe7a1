"""Without a network a download says so within seconds, however the network is missing; slow servers are left."""

import contextlib
import email.utils
import hashlib
import socket
import threading
import time

import pytest

from scratchlm.assets.download import Patience, default_patience, download
from scratchlm.assets.http_requests import retry_after_s
from scratchlm.cli.main import main
from scratchlm.core.errors import DownloadError

DATA = bytes(range(256)) * 100
PROMISE = {"sha256": hashlib.sha256(DATA).hexdigest(), "size_bytes": len(DATA)}
THREE = ["https://a.invalid/f", "https://b.invalid/f", "https://c.invalid/f"]
SOON_S = 5.0


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_OFFLINE", "SCRATCHLM_MIRROR", "SCRATCHLM_MIN_RATE"):
        monkeypatch.delenv(name, raising=False)


def fails_soon(urls, target) -> str:
    started_at_s = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        download(urls, target, **PROMISE)
    assert time.monotonic() - started_at_s < SOON_S
    return str(caught.value)


def test_names_that_nobody_knows_fail_at_once(tmp_path, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = fails_soon(THREE, tmp_path / "f")
    assert message.count("no connection") == 3
    assert "Check the connection" in message


def test_a_look_up_that_never_ends_is_left(tmp_path, monkeypatch):
    is_over = threading.Event()

    def hang(*args, **kwargs):
        is_over.wait(60)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        assert fails_soon(THREE, tmp_path / "f").count("no connection within 1.3 s") == 3
    finally:
        is_over.set()


def test_a_proxy_that_opens_no_tunnel_is_asked_once_for_each_mirror(tmp_path, monkeypatch):
    def refuse(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert fails_soon(THREE, tmp_path / "f").count("no connection (503 Service Unavailable)") == 3


def test_an_address_that_swallows_every_packet_is_left(tmp_path):
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # its queue is full after one or two connections; further ones get no answer at all
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/f"
        assert "no connection" in fails_soon([url, url, url], tmp_path / "f")


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_by_setting_asks_nobody(server, answers, tmp_path, monkeypatch, value):
    server.routes["/f"] = [answers.body(DATA)]
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert "HF_HUB_OFFLINE is set" in fails_soon([server.url("/f")], tmp_path / "f")
    assert server.requests == []
    monkeypatch.setenv("SCRATCHLM_MIRROR", server.url(""))
    assert download([server.url("/f")], tmp_path / "f", **PROMISE).read_bytes() == DATA


def trickling(n_bytes: int, pause_s: float):
    """An answer of one byte at a time, all promised."""

    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(DATA)))
        handler.end_headers()
        for at in range(n_bytes):
            handler.wfile.write(DATA[at : at + 1])
            handler.wfile.flush()
            time.sleep(pause_s)

    return answer


def test_a_server_that_trickles_is_left_for_the_next_which_goes_on_where_it_was(server, answers, tmp_path):
    server.routes["/slow"] = [trickling(200, 0.02)]
    server.routes["/mirror"] = [answers.ranged(DATA)]
    patience = Patience(slowest_bytes_per_s=1000, slow_s=0.5, timeout_s=5, attempts=1)
    urls = [server.url("/slow"), server.url("/mirror")]
    assert download(urls, tmp_path / "f", **PROMISE, patience=patience).read_bytes() == DATA
    [range_] = server.ranges("/mirror")
    assert 1 < int(range_.removeprefix("bytes=").removesuffix("-")) < 200


def test_where_all_servers_are_slow_the_message_says_what_allows_it(server, tmp_path, monkeypatch):
    server.routes["/slow"] = [trickling(100, 0.02)]
    patience = Patience(slowest_bytes_per_s=1000, slow_s=0.3, timeout_s=5, attempts=1)
    with pytest.raises(DownloadError, match=r"bytes per second arrived for 0\.3 s \(SCRATCHLM_MIN_RATE sets"):
        download([server.url("/slow")], tmp_path / "f", **PROMISE, patience=patience)


@pytest.mark.parametrize(("value", "rate"), [("", 1024), ("50", 50), ("0", 0), ("2.5", 2.5)])
def test_the_slowest_rate_is_a_setting(monkeypatch, value, rate):
    monkeypatch.setenv("SCRATCHLM_MIN_RATE", value)
    assert default_patience().slowest_bytes_per_s == rate


def test_a_rate_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_MIN_RATE", "fast")
    with pytest.raises(DownloadError, match="must be a number of bytes per second, got 'fast'"):
        download(THREE, tmp_path / "f", **PROMISE)


def test_the_hub_without_a_network_is_told_before_its_library_tries_for_a_minute(
    tmp_path, monkeypatch, capsys
):
    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    started_at_s = time.monotonic()
    code = main(
        ["data", "fetch", "hf:nobody/nothing", "--columns", "text", "--out", str(tmp_path / "x.jsonl")]
    )
    assert code == 4
    assert time.monotonic() - started_at_s < SOON_S
    assert "huggingface.co cannot be reached (Name or service not known)" in capsys.readouterr().err.replace(
        "[Errno -2] ", ""
    )


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), (" 120 ", 120.0), ("", None), ("-1", None), ("1.5", None), ("x", None)]
)
def test_seconds_are_whole_numbers(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_date_is_the_time_until_then():
    assert retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT") == 0.0
