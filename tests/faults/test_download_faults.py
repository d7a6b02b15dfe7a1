"""`weights fetch` against a mirror with fourteen faults, and killed at any moment: a file is right or not there."""

import contextlib
import hashlib
import json
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from scratchlm.assets.download import Patience
from scratchlm.assets.known_weights import GPT2_ASSETS, gpt2_files, gpt2_size
from scratchlm.cli.main import main
from tests.assets.small_gpt2 import PLAIN_FILES, promise, table_of
from tests.checkpoints.tensorflow.writer import bundle
from tests.processes import start_python

HASTY = Patience(timeout_s=0.5, attempts=3, backoff_s=0.01, longest_wait_s=2)


def safetensors(n_numbers: int) -> bytes:
    """A small file of one tensor."""
    entry = {"dtype": "F32", "shape": [n_numbers], "data_offsets": [0, 4 * n_numbers]}
    header = json.dumps({"wte.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(256)) * (n_numbers // 64)


WEIGHTS = safetensors(16_384)  # 64 KiB
INDEX, DATA = bundle({"model/wte": np.arange(16_384, dtype="<f4"), "model/wpe": np.ones((4, 8), "<f4")})
CONTENTS = {
    "model.safetensors": WEIGHTS,
    **PLAIN_FILES,
    "model.ckpt.data-00000-of-00001": DATA,
    "model.ckpt.index": INDEX,
}
FILES = {
    asset.id: json.dumps(dict(asset.settings)).encode()
    if asset.settings
    else CONTENTS[asset.id.rpartition("/")[2]]
    for asset in GPT2_ASSETS
}


class Handler(BaseHTTPRequestHandler):
    """Serves /mirror/<id> and /origin/<id> with ranges and ETags, unless a fault is prepared for the path."""

    def do_GET(self) -> None:
        n_earlier = sum(path == self.path for path, _ in self.server.requests)
        self.server.requests.append((self.path, dict(self.headers)))
        fault = self.server.faults.get(self.path)
        if fault is None or fault(self, n_earlier) == "as usual":
            self.serve()

    def serve(self, *, data: bytes | None = None) -> None:
        if data is None:
            data = self.server.files.get(self.path.lstrip("/").partition("/")[2])
        if data is None or self.path.startswith(self.server.missing):
            return self.say(404)
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        asked = self.headers.get("Range")
        if asked is None or self.headers.get("If-Range") not in (None, etag):
            return self.say(200, data, ETag=etag)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(data):
            return self.say(416, ETag=etag, Content_Range=f"bytes */{len(data)}")
        where = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.say(206, data[start:], ETag=etag, Content_Range=where)

    def say(self, status: int, data: bytes = b"", *, n_sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:n_sent])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


class Server(ThreadingHTTPServer):
    """The mirror and the origin; remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = dict(FILES), {}, []
        self.missing = "/nowhere"  # what lies below this is a 404
        self.may_go_on = threading.Event()
        self.scheme = "http"

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}{path}"

    def ranges(self, path: str) -> list[str | None]:
        return [headers.get("Range") for asked, headers in self.requests if asked == path]

    def handle_error(self, *args: object) -> None:
        """A client that leaves early is part of the tests."""


@contextlib.contextmanager
def running(server: Server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.may_go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of our own, and no settings of this machine."""
    for name in ("SCRATCHLM_ASSETS", "SCRATCHLM_MIRROR", "HF_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    earlier = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "home" / "gpt2"
    signal.signal(signal.SIGTERM, earlier)


@pytest.fixture
def server(place, monkeypatch):
    """The mirror before an origin of this machine; promises fit what they serve."""
    with running(Server()) as server:
        monkeypatch.setenv("SCRATCHLM_MIRROR", server.url("/mirror"))
        promise(monkeypatch, known_here(server), patience=HASTY)
        yield server


def known_here(server: Server):
    """The table of weights, with its addresses and promises fitted to the server's small files."""
    return table_of(FILES.get, url=lambda asset_id: server.url(f"/origin/{asset_id}"))


def once(fault):
    """The fault at the first request only."""
    return lambda handler, n_earlier: fault(handler) if n_earlier == 0 else "as usual"


def always(fault):
    return lambda handler, n_earlier: fault(handler)


def cut(handler, n_sent=20_000):
    handler.say(200, WEIGHTS, n_sent=n_sent, ETag=f'"{hashlib.sha256(WEIGHTS).hexdigest()[:16]}"')


def reset(handler):
    cut(handler)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def stall(handler):
    cut(handler)
    handler.server.may_go_on.wait(3)


def ignore_ranges(handler, n_earlier):
    cut(handler) if n_earlier == 0 else handler.say(200, WEIGHTS)


def shift_ranges(handler, n_earlier):
    if n_earlier == 0:
        return cut(handler)
    if n_earlier > 1:
        return "as usual"
    start = 20_100
    where = f"bytes {start}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
    return handler.say(206, WEIGHTS[start:], Content_Range=where)


def wrong_bytes(handler):
    handler.say(200, b"x" * len(WEIGHTS))


def login_page(handler):
    handler.say(200, b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html")


def login_page_in_disguise(handler):
    handler.say(200, b"\n<html>".ljust(len(WEIGHTS)), Content_Type="application/octet-stream")


RECOVERS = {  # what the mirror does at the first request; asked again, it delivers
    "500 then fine": once(lambda handler: handler.say(500)),
    "429 with Retry-After": once(lambda handler: handler.say(429, Retry_After="0")),
    "reset in the middle": once(reset),
    "short body": once(cut),
    "stall": once(stall),
    "range ignored": ignore_ranges,
    "wrong range offset": shift_ranges,
}
REFUSED = {  # what the mirror does at every request
    "404": always(lambda handler: handler.say(404)),
    "500": always(lambda handler: handler.say(500)),
    "429 for an hour": always(lambda handler: handler.say(429, Retry_After="3600")),
    "always short": always(cut),
    "redirect loop": always(lambda handler: handler.say(302, Location=handler.path)),
    "another scheme": always(lambda handler: handler.say(302, Location="file:///etc/hostname")),
    "wrong bytes": always(wrong_bytes),
    "login page": always(login_page),
    "login page in disguise": always(login_page_in_disguise),
}
SIZES = pytest.mark.parametrize(
    ("name", "folder"), [("gpt2-small", "124M"), ("gpt2-large", "774M")], ids=["sha256 known", "unknown"]
)


@pytest.mark.parametrize("source", ["hf", "openai"])
@pytest.mark.parametrize("name", ["gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_every_size_comes_whole_from_a_mirror_and_a_broken_download_goes_on(server, place, name, source):
    size = gpt2_size(name)
    ids = [asset.id for asset in gpt2_files(size, source)]
    largest = max(ids, key=lambda asset_id: len(FILES[asset_id]))
    data = FILES[largest]
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    server.faults[f"/mirror/{largest}"] = once(
        lambda handler: handler.say(200, data, n_sent=20_000, ETag=etag)
    )
    assert main(["weights", "fetch", name, "--source", source]) == 0
    for asset_id in ids:
        assert (place.parent / asset_id).read_bytes() == FILES[asset_id]
    assert server.ranges(f"/mirror/{largest}") == [None, "bytes=20000-"]


@SIZES
@pytest.mark.parametrize("fault", RECOVERS)
def test_a_passing_fault_costs_time_but_not_the_file(server, place, fault, name, folder):
    server.faults[f"/mirror/gpt2/{folder}/model.safetensors"] = RECOVERS[fault]
    server.missing = "/origin"
    assert main(["weights", "fetch", name]) == 0
    assert (place / folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(place.rglob("*.partial*"))


@SIZES
@pytest.mark.parametrize("fault", REFUSED)
def test_a_lasting_fault_leaves_no_file(server, place, fault, name, folder, capsys):
    server.faults[f"/mirror/gpt2/{folder}/model.safetensors"] = REFUSED[fault]
    server.missing = "/origin"
    assert main(["weights", "fetch", name]) == 4
    assert not (place / folder / "model.safetensors").exists()
    assert not (place / folder / "model.safetensors.sha256").exists()
    said = capsys.readouterr().err
    assert server.url("/mirror/") in said
    assert "Traceback" not in said


@SIZES
@pytest.mark.parametrize("fault", REFUSED)
def test_a_lasting_fault_of_the_mirror_leaves_the_work_to_the_origin(server, place, fault, name, folder):
    server.faults[f"/mirror/gpt2/{folder}/model.safetensors"] = REFUSED[fault]
    assert main(["weights", "fetch", name]) == 0
    assert (place / folder / "model.safetensors").read_bytes() == WEIGHTS


@SIZES
def test_a_dead_first_address_leaves_the_work_to_the_next(server, place, monkeypatch, name, folder):
    monkeypatch.setenv("SCRATCHLM_MIRROR", "http://127.0.0.1:9/mirror")
    assert main(["weights", "fetch", name]) == 0
    assert (place / folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("file", ["config.json", "model.ckpt.index", "checkpoint", "vocab.bpe"])
def test_a_login_page_under_any_name_is_refused(server, place, file):
    source = "hf" if file == "config.json" else "openai"
    server.faults[f"/mirror/gpt2/774M/{file}"] = always(login_page_in_disguise)
    server.missing = "/origin"
    assert main(["weights", "fetch", "gpt2-large", "--source", source]) == 4
    assert not (place / "774M" / file).exists()


WRONG = {  # of the right length, or nearly; none of these files has a sha256 that is known
    "config.json": b'{"error": "rate limit exceeded"}',
    "hparams.json": b'{"error": "rate limit exceeded"}',
    "model.ckpt.data-00000-of-00001": random.Random(1).randbytes(len(DATA)),
    "model.ckpt.index": random.Random(2).randbytes(len(INDEX)),
    "model.ckpt.meta": random.Random(3).randbytes(100),
    "model.safetensors": random.Random(4).randbytes(len(WEIGHTS)),
}


@pytest.mark.parametrize("file", WRONG)
def test_wrong_bytes_are_refused_where_no_hash_is_known(server, place, file, capsys):
    source = "hf" if file in ("config.json", "model.safetensors") else "openai"
    server.faults[f"/mirror/gpt2/774M/{file}"] = always(lambda handler: handler.say(200, WRONG[file]))
    server.missing = "/origin"
    assert main(["weights", "fetch", "gpt2-large", "--source", source]) == 4
    assert not (place / "774M" / file).exists()
    assert not (place / "774M" / f"{file}.sha256").exists()
    assert main(["weights", "fetch", "gpt2-large", "--source", source]) == 4  # nothing of it was kept
    server.faults.clear()
    assert main(["weights", "fetch", "gpt2-large", "--source", source]) == 0
    assert (place / "774M" / file).read_bytes() == FILES[f"gpt2/774M/{file}"]


@pytest.mark.parametrize("at", [0, 30_000, len(DATA) - 1])
def test_one_wrong_bit_of_the_weights_is_found_by_the_index(server, place, at, capsys):
    data = bytearray(DATA)
    data[at] ^= 1
    path = "/mirror/gpt2/774M/model.ckpt.data-00000-of-00001"
    server.faults[path] = always(lambda handler: handler.say(200, bytes(data)))
    server.missing = "/origin"
    assert main(["weights", "fetch", "gpt2-large", "--source", "openai", "--dir", "gpt2"]) == 4
    assert "does not fit its index" in capsys.readouterr().err


def test_settings_of_another_size_are_refused(server, place, capsys):
    other = FILES["gpt2/1558M/hparams.json"]
    server.faults["/mirror/gpt2/774M/hparams.json"] = always(lambda handler: handler.say(200, other))
    server.missing = "/origin"
    assert main(["weights", "fetch", "gpt2-large", "--source", "openai"]) == 4
    assert "n_embd = 1600 instead of 1280" in capsys.readouterr().err


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that nobody vouches for."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate; it is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *extension], check=True, capture_output=True)
    return key, cert


@pytest.fixture
def https_server(place, certificate, monkeypatch):
    key, cert = certificate
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = "https"
    with running(server):
        monkeypatch.setenv("SCRATCHLM_MIRROR", server.url("/mirror"))
        promise(monkeypatch, known_here(server), patience=HASTY)
        yield server


def test_a_server_that_nobody_vouches_for_is_refused(https_server, place, capsys):
    assert main(["weights", "fetch", "gpt2-small"]) == 4
    assert "certificate is not trusted" in capsys.readouterr().err
    assert https_server.requests == []
    assert not [path for path in place.rglob("*") if path.is_file()]


def test_a_certificate_that_the_user_trusts_is_accepted(https_server, place, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))
    assert main(["weights", "fetch", "gpt2-small"]) == 0
    assert (place / "124M" / "model.safetensors").read_bytes() == WEIGHTS


RUNNER = """
import dataclasses, functools, json, sys
from scratchlm.cli.main import main
from scratchlm.assets import fetch, known_weights, registry
from scratchlm.assets.download import Patience, download

promises = json.loads(sys.argv[1])
table = tuple(
    dataclasses.replace(asset, urls=tuple(promises[asset.id][0]), size_bytes=promises[asset.id][1],
                        sha256=promises[asset.id][2])
    for asset in known_weights.GPT2_ASSETS
)
registry.GPT2_ASSETS = known_weights.GPT2_ASSETS = table
fetch.download = functools.partial(download, patience=Patience(timeout_s=30, attempts=3, backoff_s=0.05))
sys.exit(main(sys.argv[2:]))
"""


def start(server: Server, *args: str) -> subprocess.Popen[str]:
    """The command in a process of its own, on the same table."""
    promises = {a.id: (a.urls, a.size_bytes, a.sha256) for a in known_here(server)}
    return start_python("-c", RUNNER, json.dumps(promises), *args)


def wait_until(is_so, *, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def hold(handler):
    """Send a part, then wait for the test."""
    cut(handler)
    handler.server.may_go_on.wait(60)


@pytest.mark.slow
@SIZES
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_fetch_goes_on_where_it_was(server, place, number, name, folder):
    path, target = f"/mirror/gpt2/{folder}/model.safetensors", place / folder / "model.safetensors"
    partial = target.with_name("model.safetensors.partial")
    server.faults[path] = once(hold)
    process = start(server, "weights", "fetch", name)
    wait_until(lambda: server.ranges(path) and partial.exists() and partial.stat().st_size > 0)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert not target.exists()
    n_kept = partial.stat().st_size
    assert 0 < n_kept <= 20_000
    assert main(["weights", "fetch", name]) == 0
    assert target.read_bytes() == WEIGHTS
    assert server.ranges(path) == [None, f"bytes={n_kept}-"]
    assert not list(place.rglob("*.partial*"))


@pytest.mark.slow
@SIZES
def test_of_several_processes_one_downloads_and_the_others_wait(server, place, name, folder):
    path = f"/mirror/gpt2/{folder}/config.json"

    def hold_the_first(handler):
        handler.server.may_go_on.wait(60)
        return "as usual"

    server.faults[path] = once(hold_the_first)
    processes = [start(server, "weights", "fetch", name) for _ in range(2)]
    is_waiting = threading.Event()
    said = ["", ""]

    def listen(i: int) -> None:
        for line in processes[i].stderr:
            said[i] += line
            if "another process is downloading" in line:
                is_waiting.set()

    listeners = [threading.Thread(target=listen, args=(i,)) for i in range(2)]
    for listener in listeners:
        listener.start()
    assert is_waiting.wait(60)
    server.may_go_on.set()
    assert [process.wait(timeout=60) for process in processes] == [0, 0], said
    for listener, process in zip(listeners, processes, strict=True):
        listener.join()
        process.stdout.close()
        process.stderr.close()
    assert len(server.ranges(path)) == 1
    assert len(server.ranges(f"/mirror/gpt2/{folder}/model.safetensors")) == 1
    assert (place / folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.slow
@SIZES
def test_what_a_killed_process_held_is_taken_over_by_the_one_that_waits(server, place, name, folder):
    path, target = f"/mirror/gpt2/{folder}/model.safetensors", place / folder / "model.safetensors"
    partial = target.with_name("model.safetensors.partial")
    server.faults[path] = once(hold)
    first = start(server, "weights", "fetch", name)
    wait_until(lambda: server.ranges(path) and partial.exists() and partial.stat().st_size > 0)
    second = start(server, "weights", "fetch", name)
    is_waiting = threading.Event()

    def listen() -> None:
        for line in second.stderr:
            if "another process is downloading" in line:
                is_waiting.set()

    listener = threading.Thread(target=listen)
    listener.start()
    assert is_waiting.wait(60)
    n_kept = partial.stat().st_size
    first.kill()
    first.communicate(timeout=60)
    assert second.wait(timeout=60) == 0
    listener.join()
    second.stdout.close()
    second.stderr.close()
    assert server.ranges(path) == [None, f"bytes={n_kept}-"]
    assert target.read_bytes() == WEIGHTS
