"""Downloads under the book's names."""

import dataclasses
import hashlib
import http.server
import io
import sys
import threading
import types
import urllib.error
import zipfile

import pytest

from scratchlm.assets.registry import find_assets
from scratchlm.book import ch06, downloads
from scratchlm.core.errors import DownloadError

NOWHERE = "nowhere:a"  # an address of no kind that is fetched


@pytest.fixture(autouse=True)
def _no_assets(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)


class RequestException(IOError):  # noqa: N818 - its name there
    """As requests has it."""


@pytest.mark.parametrize("caught", [RequestException, urllib.error.URLError, TimeoutError, DownloadError])
def test_what_the_books_scripts_catch_around_a_download_catches_ours(tmp_path, monkeypatch, caught):
    requests = types.SimpleNamespace(exceptions=types.SimpleNamespace(RequestException=RequestException))
    monkeypatch.setitem(sys.modules, "requests", requests)
    with pytest.raises(caught, match="not an http"):
        downloads.download_file(NOWHERE, tmp_path / "a")
    with pytest.raises(caught, match="not an http"):
        ch06.download_and_unzip_spam_data(NOWHERE, tmp_path / "a", tmp_path / "b", tmp_path / "c")


def test_without_requests_a_failed_download_is_our_error(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "requests", raising=False)
    with pytest.raises(DownloadError, match="not an http"):
        downloads.download_file(NOWHERE, tmp_path / "a")


def test_a_known_file_that_lies_among_the_assets_is_copied(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(real_data))
    url = f"{downloads.BOOK_MAIN}/ch07/01_main-chapter-code/instruction-data.json"
    downloads.download_file(url, tmp_path / "data.json")
    original = real_data / "instruction" / "instruction-data.json"
    assert (tmp_path / "data.json").read_bytes() == original.read_bytes()
    (asset,) = find_assets("sms_spam_collection/SMSSpamCollection")
    folder = tmp_path / "messages"
    ch06.download_and_unzip_spam_data(asset.urls[0], tmp_path / "a.zip", folder, folder / "messages.tsv")
    assert hashlib.sha256((folder / "messages.tsv").read_bytes()).hexdigest() == asset.sha256


def test_a_file_address_is_copied(tmp_path):
    (tmp_path / "a b.txt").write_bytes(b"cat")
    downloads.download_file((tmp_path / "a b.txt").as_uri(), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"cat"


def test_progress_is_shown_in_a_terminal_only(capsys, monkeypatch):
    assert downloads.progress_in_a_terminal("file") is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show = downloads.progress_in_a_terminal("file")
    for done in (0, 50, 50, 100):
        show(done, 100)
    assert capsys.readouterr().out.split("\r") == [
        "",
        "file:        0%",
        "file:       50%",
        "file:      100%\n",
    ]


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


@pytest.fixture
def serve():
    """Serve some bytes at a loopback address."""
    servers = []

    def start(body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/sms.zip"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_messages_are_taken_out_of_the_zip_file(serve, tmp_path, capsys):
    url = serve(zipped(SMSSpamCollection="ham\thello\n", readme="about"))
    folder = tmp_path / "sms_spam_collection"
    target = folder / "SMSSpamCollection.tsv"
    for _ in range(2):  # the second time nothing is asked for
        ch06.download_and_unzip_spam_data(url, tmp_path / "sms.zip", folder, target)
    assert target.read_text() == "ham\thello\n"
    assert [path.name for path in folder.iterdir()] == [target.name]
    assert capsys.readouterr().out == (
        f"File downloaded and saved as {target}\n{target} already exists. Skipping download and extraction.\n"
    )


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"no zip", "not a valid zip file"),
        (zipped(readme="a"), "no such member"),
        (zipped(SMSSpamCollection="ham\thello\n", **{"../evil": "x"}), "unsafe name"),
        (zipped(SMSSpamCollection="ham\thello\n", smsspamcollection="x"), "differing in case"),
    ],
)
def test_what_holds_no_messages_is_an_error(serve, tmp_path, body, found):
    with pytest.raises(DownloadError, match=found):
        ch06.download_and_unzip_spam_data(
            serve(body), tmp_path / "a.zip", tmp_path / "b", tmp_path / "b" / "c"
        )
    assert not (tmp_path / "b").exists()


def test_a_download_that_fails_is_an_error(tmp_path):
    with pytest.raises(DownloadError, match="not an http"):
        ch06.download_and_unzip_spam_data(
            "nowhere:a", tmp_path / "a.zip", tmp_path / "b", tmp_path / "b" / "c"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_real_zip_file_brings_the_real_messages(real_data, serve, tmp_path, capsys):
    (asset,) = find_assets("sms_spam_collection/SMSSpamCollection")
    url = serve((real_data / "sms_spam_collection" / "sms+spam+collection.zip").read_bytes())
    target = tmp_path / "data" / "SMSSpamCollection.tsv"
    ch06.download_and_unzip_spam_data(url, tmp_path / "sms.zip", tmp_path / "data", target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == asset.sha256


def test_other_bytes_under_a_known_address_are_an_error(serve, tmp_path, monkeypatch):
    (asset,) = find_assets("sms_spam_collection/SMSSpamCollection")
    url = serve(zipped(SMSSpamCollection="spam\tforged\n"))
    known = dataclasses.replace(asset, urls=(url,))
    monkeypatch.setattr("scratchlm.book.downloads.find_assets", lambda _: [known])
    with pytest.raises(DownloadError, match="instead of 203,415"):
        ch06.download_and_unzip_spam_data(url, tmp_path / "a.zip", tmp_path / "b", tmp_path / "b" / "c")
    assert not (tmp_path / "b").exists()
