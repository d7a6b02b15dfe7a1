"""Downloads against a server that fails in every way a network has shown us."""

import email.utils
import hashlib
import time

import httpx
import pytest

from scratchlm.assets import download as download_module
from scratchlm.assets.download import Patience, download
from scratchlm.assets.partial_download import open_partial
from scratchlm.core.errors import DownloadError

DATA = bytes(range(256)) * 400  # 102,400 bytes
SHA256 = hashlib.sha256(DATA).hexdigest()
PROMISE = {"sha256": SHA256, "size_bytes": len(DATA)}
HASTY = Patience(timeout_s=5, attempts=3, backoff_s=0.01, longest_wait_s=2)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new folder" / "file.bin"


def assert_only_the_target_is_there(target):
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_good_server_delivers_and_progress_reaches_the_end(server, answers, target):
    server.routes["/f"] = [answers.body(DATA)]
    seen = []
    path = download(
        [server.url("/f")], target, **PROMISE, progress=lambda done, total: seen.append((done, total))
    )
    assert path == target
    assert_only_the_target_is_there(target)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_target_that_is_right_already_costs_no_request(server, target):
    target.parent.mkdir()
    target.write_bytes(DATA)
    download([server.url("/f")], target, **PROMISE)
    assert server.requests == []


def test_a_damaged_target_is_replaced(server, answers, target):
    target.parent.mkdir()
    target.write_bytes(DATA[:-1] + b"x")
    server.routes["/f"] = [answers.body(DATA)]
    download([server.url("/f")], target, **PROMISE)
    assert_only_the_target_is_there(target)


def test_without_a_promise_the_content_length_decides(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 1000), answers.body(DATA)]
    download([server.url("/f")], target, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_not_found_is_not_asked_again_and_the_message_names_it(server, target):
    with pytest.raises(DownloadError, match=r"/missing: the server answered 404 Not Found") as caught:
        download([server.url("/missing")], target, **PROMISE, patience=HASTY)
    assert len(server.requests) == 1
    assert caught.value.exit_code == 4
    assert not target.exists()
    assert list(target.parent.iterdir()) == []


def test_a_dead_first_address_leaves_the_work_to_the_mirror(server, answers, target):
    server.routes["/mirror"] = [answers.body(DATA)]
    download(
        ["http://127.0.0.1:9/f", server.url("/404"), server.url("/mirror")], target, **PROMISE, patience=HASTY
    )
    assert_only_the_target_is_there(target)


def test_when_every_address_fails_each_failure_is_told(server, answers, target):
    server.routes["/broken"] = [answers.body(b"", status=500)]
    with pytest.raises(DownloadError) as caught:
        download([server.url("/404"), server.url("/broken")], target, **PROMISE, patience=HASTY)
    assert "404 Not Found" in str(caught.value)
    assert "500 Internal Server Error (3 attempts)" in str(caught.value)
    assert len(server.ranges("/broken")) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(server, answers, target, status):
    server.routes["/f"] = [answers.body(b"busy", status=status), answers.body(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_retry_after_in_seconds_is_respected(server, answers, target):
    server.routes["/f"] = [answers.body(b"", status=429, Retry_After="1"), answers.body(DATA)]
    started_at_s = time.monotonic()
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert time.monotonic() - started_at_s >= 1.0
    assert_only_the_target_is_there(target)


def test_retry_after_as_a_date_in_the_past_means_now(server, answers, target):
    date = email.utils.format_datetime(email.utils.localtime().replace(year=2020, day=1))
    server.routes["/f"] = [answers.body(b"", status=503, Retry_After=date), answers.body(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_a_server_that_asks_for_too_much_patience_is_left_for_the_mirror(server, answers, target):
    server.routes["/f"] = [answers.body(b"", status=429, Retry_After="3600")]
    server.routes["/mirror"] = [answers.body(DATA)]
    download([server.url("/f"), server.url("/mirror")], target, **PROMISE, patience=HASTY)
    assert len(server.ranges("/f")) == 1
    assert_only_the_target_is_there(target)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_connection_cut_in_the_middle_is_resumed_where_it_broke(server, answers, target, reset):
    server.routes["/f"] = [answers.cut(DATA, 40_000, reset=reset), answers.ranged(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert_only_the_target_is_there(target)
    first, second = server.ranges("/f")
    assert first is None
    if not reset:  # a reset may swallow bytes that were on their way
        assert second == "bytes=40000-"


def test_a_stalled_connection_times_out_and_is_resumed(server, answers, target):
    server.routes["/f"] = [answers.stall(DATA, 30_000), answers.ranged(DATA)]
    impatient = Patience(timeout_s=0.3, attempts=3, backoff_s=0.01)
    download([server.url("/f")], target, **PROMISE, patience=impatient)
    assert server.ranges("/f") == [None, "bytes=30000-"]
    assert_only_the_target_is_there(target)


def test_interrupting_keeps_the_part_and_the_next_call_resumes_it(server, answers, target):
    server.routes["/f"] = [answers.ranged(DATA)]

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.url("/f")], target, **PROMISE, progress=interrupt)
    n_kept = target.with_name("file.bin.partial").stat().st_size
    assert not target.exists()
    assert 0 < n_kept < len(DATA)
    download([server.url("/f")], target, **PROMISE)
    assert server.ranges("/f") == [None, f"bytes={n_kept}-"]
    assert_only_the_target_is_there(target)


def test_another_mirror_may_finish_what_the_first_began(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 50_000), answers.body(b"", status=404)]
    server.routes["/mirror"] = [answers.ranged(DATA, etag='"other"')]
    download([server.url("/f"), server.url("/mirror")], target, **PROMISE, patience=HASTY)
    assert server.ranges("/mirror") == ["bytes=50000-"]
    assert_only_the_target_is_there(target)


def test_a_server_that_ignores_the_range_sends_everything_once(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 40_000), answers.body(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_a_part_with_the_wrong_offset_is_refused_and_the_file_fetched_whole(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 40_000), answers.ranged(DATA, shift=100), answers.ranged(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert server.ranges("/f") == [None, "bytes=40000-", None]
    assert_only_the_target_is_there(target)


def test_a_wrong_older_part_costs_a_second_download_but_not_the_file(server, answers, target):
    target.parent.mkdir()
    target.with_name("file.bin.partial").write_bytes(b"x" * 5000)
    server.routes["/f"] = [answers.ranged(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert server.ranges("/f") == ["bytes=5000-", None]
    assert_only_the_target_is_there(target)


def test_a_complete_older_part_is_only_checked(server, target):
    target.parent.mkdir()
    target.with_name("file.bin.partial").write_bytes(DATA)
    download([server.url("/f")], target, **PROMISE)
    assert server.requests == []
    assert_only_the_target_is_there(target)


def test_an_older_part_that_nothing_can_prove_is_dropped(server, answers, target):
    target.parent.mkdir()
    target.with_name("file.bin.partial").write_bytes(DATA[:5000])
    server.routes["/f"] = [answers.ranged(DATA, etag='"1"')]
    download([server.url("/f")], target, size_bytes=len(DATA))
    assert server.ranges("/f") == [None]
    assert_only_the_target_is_there(target)


def test_without_a_sha256_an_equal_etag_allows_to_resume(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 40_000, ETag='"1"'), answers.ranged(DATA, etag='"1"')]
    download([server.url("/f")], target, patience=HASTY)
    assert server.ranges("/f") == [None, "bytes=40000-"]
    assert server.requests[1][1]["If-Range"] == '"1"'
    assert_only_the_target_is_there(target)


def test_without_a_sha256_a_file_that_changed_in_between_is_never_stitched_together(server, answers, target):
    old = b"old" * 30_000
    server.routes["/f"] = [answers.cut(old, 40_000, ETag='"1"'), answers.ranged(DATA, etag='"2"')]
    download([server.url("/f")], target, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_a_server_that_ignores_if_range_is_found_out_by_its_etag(server, answers, target):
    old = b"o" * len(DATA)

    def part_of_the_new_one(handler):
        start = 40_000
        answers.body(
            DATA[start:], status=206, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}", ETag='"2"'
        )(handler)

    whole = answers.body(DATA, ETag='"2"')
    server.routes["/f"] = [answers.cut(old, 40_000, ETag='"1"'), part_of_the_new_one, whole]
    download([server.url("/f")], target, patience=HASTY)
    assert_only_the_target_is_there(target)


@pytest.mark.parametrize("etag", [None, 'W/"1"'], ids=["no ETag", "weak ETag"])
def test_without_any_proof_a_cut_download_starts_over(server, answers, target, etag):
    headers = {} if etag is None else {"ETag": etag}
    server.routes["/f"] = [answers.cut(DATA, 40_000, **headers), answers.ranged(DATA, etag=etag)]
    download([server.url("/f")], target, patience=HASTY)
    assert server.ranges("/f") == [None, None]
    assert_only_the_target_is_there(target)


def test_a_range_beyond_the_end_starts_over(server, answers, target):
    target.parent.mkdir()
    target.with_name("file.bin.partial").write_bytes(b"x" * len(DATA))
    server.routes["/f"] = [answers.ranged(DATA)]
    download([server.url("/f")], target, sha256=SHA256, patience=HASTY)  # size unknown: the server says 416
    assert_only_the_target_is_there(target)


def test_a_body_shorter_than_promised_is_never_accepted(server, answers, target):
    server.routes["/f"] = [answers.body(DATA[:-1])]
    with pytest.raises(DownloadError, match="the file has 102,399 bytes there instead of 102,400"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert not target.exists()


def test_a_body_that_always_breaks_off_ends_in_an_error_and_keeps_the_part(server, answers, target):
    server.routes["/f"] = [answers.cut(DATA, 20_000)]  # from the start, each time
    with pytest.raises(DownloadError, match=r"\(3 attempts\).*it will resume"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert target.with_name("file.bin.partial").stat().st_size == 20_000
    assert not target.exists()


def test_a_server_that_always_begins_anew_is_not_asked_forever(server, answers, target, monkeypatch):
    monkeypatch.setattr(download_module, "GOOD_PROGRESS_BYTES", 10_000)
    cuts = [answers.cut(DATA, 20_000), answers.cut(DATA, 60_000)]  # it knows no ranges: 200 each time
    server.routes["/f"] = [*cuts * 5, answers.body(DATA)]
    with pytest.raises(DownloadError, match=r"\(3 attempts\)"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert len(server.requests) == 4  # two that brought more than was there, two that did not


def test_a_body_without_a_length_is_checked_against_the_promise(server, answers, target):
    def until_closed(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(DATA[:1000])

    server.routes["/f"] = [until_closed, answers.ranged(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert server.ranges("/f") == [None, "bytes=1000-"]
    assert_only_the_target_is_there(target)


def test_an_endless_body_stops_at_the_promised_size(server, answers, target):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(DATA)

    server.routes["/f"] = [endless]
    with pytest.raises(DownloadError, match="more than the expected 102,400 bytes arrived"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert list(target.parent.iterdir()) == []


def test_the_right_size_with_wrong_bytes_is_refused_and_both_hashes_named(server, answers, target):
    wrong = b"x" * len(DATA)
    server.routes["/f"] = [answers.body(wrong)]
    with pytest.raises(DownloadError) as caught:
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_failed_download_leaves_the_older_target_as_it_was(server, answers, target):
    target.parent.mkdir()
    target.write_bytes(b"older")
    server.routes["/f"] = [answers.body(b"x" * len(DATA))]
    with pytest.raises(DownloadError):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert target.read_bytes() == b"older"


def test_a_login_page_with_status_200_is_recognised_and_the_mirror_used(server, answers, target):
    page = b"<html>Please accept our terms</html>"
    server.routes["/f"] = [answers.body(page, Content_Type="text/html; charset=utf-8")]
    with pytest.raises(DownloadError, match="web page instead of the file"):
        download([server.url("/f")], target, patience=HASTY)
    server.routes["/mirror"] = [answers.body(DATA)]
    download([server.url("/f"), server.url("/mirror")], target, **PROMISE, patience=HASTY)
    assert_only_the_target_is_there(target)


def test_a_login_page_does_not_cost_the_part_that_is_there(server, answers, target):
    target.parent.mkdir()
    target.with_name("file.bin.partial").write_bytes(DATA[:5000])
    server.routes["/f"] = [answers.body(b"<html>", Content_Type="text/html")]
    with pytest.raises(DownloadError):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert target.with_name("file.bin.partial").read_bytes() == DATA[:5000]


def test_a_compressed_body_is_refused(server, answers, target):
    server.routes["/f"] = [answers.body(DATA, Content_Encoding="gzip")]
    with pytest.raises(DownloadError, match=r"is encoded \(gzip\)"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_redirects_are_followed_also_relative_ones_and_when_resuming(server, answers, target):
    server.routes["/f"] = [answers.redirect("/g")]
    server.routes["/g"] = [answers.redirect(server.url("/h"))]
    server.routes["/h"] = [answers.cut(DATA, 40_000), answers.ranged(DATA)]
    download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert server.ranges("/h") == [None, "bytes=40000-"]
    assert_only_the_target_is_there(target)


def test_a_redirect_loop_ends(server, answers, target):
    server.routes["/f"] = [answers.redirect("/f")]
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert len(server.requests) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/f", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(server, answers, target, location):
    server.routes["/f"] = [answers.redirect(location)]
    with pytest.raises(DownloadError, match=r"not an http\(s\) address|invalid address"):
        download([server.url("/f")], target, **PROMISE, patience=HASTY)
    assert not target.exists()


def test_a_redirect_from_https_to_http_is_refused(target, monkeypatch):
    asked = []

    def answer(request):
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://example.test/f"})

    monkeypatch.setattr(
        download_module, "_client", lambda patience: httpx.Client(transport=httpx.MockTransport(answer))
    )
    with pytest.raises(DownloadError, match="from https to plain http"):
        download(["https://example.test/f"], target, **PROMISE, patience=HASTY)
    assert asked == ["https://example.test/f"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "http://", ""])
def test_an_address_that_is_none_is_refused(target, url):
    with pytest.raises(DownloadError, match=r"not an http\(s\) address|invalid address"):
        download([url], target, **PROMISE, patience=HASTY)


def test_two_processes_never_write_to_one_partial_file(server, target):
    target.parent.mkdir()
    with (
        open_partial(target, size_bytes=None, sha256=SHA256),
        pytest.raises(DownloadError, match=r"another process is downloading .*file\.bin\.partial"),
    ):
        download([server.url("/f")], target, **PROMISE, patience=Patience(other_process_s=0.2))
    assert server.requests == []


def test_too_little_space_is_told_before_the_first_request(server, target, monkeypatch):
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DownloadError, match="needs 102,400 bytes, but its disk has 10 free"):
        download([server.url("/f")], target, **PROMISE)
    assert server.requests == []


def test_a_folder_that_cannot_be_made_is_a_download_error(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="choose another folder"):
        download([server.url("/f")], tmp_path / "file" / "below", **PROMISE)


def test_a_certificate_file_that_is_not_there_is_named(server, target, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(target.parent / "no.pem"))
    with pytest.raises(DownloadError, match="SSL_CERT_FILE"):
        download([server.url("/f")], target, **PROMISE)


@pytest.mark.parametrize("promise", [PROMISE, {}], ids=["sha256 known", "unknown"])
def test_what_another_process_finished_just_before_our_lock_is_not_fetched_again(
    server, target, monkeypatch, promise
):
    def finished_by_another(path, **settings):
        path.write_bytes(DATA)
        return open_partial(path, **settings)

    monkeypatch.setattr(download_module, "open_partial", finished_by_another)
    download([server.url("/f")], target, **promise)
    assert server.requests == []
    assert_only_the_target_is_there(target)


def test_an_older_file_of_unknown_hash_is_fetched_anew(server, answers, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    server.routes["/f"] = [answers.body(DATA)]
    download([server.url("/f")], target)
    assert_only_the_target_is_there(target)
