"""Going on with a download whose sha256 nobody has published: only the server's ETag can prove the old bytes."""

import pytest

from scratchlm.assets.download import Patience, download
from scratchlm.core.errors import DownloadError

DATA = bytes(range(256)) * 400
HASTY = Patience(timeout_s=5, attempts=3, backoff_s=0.01, longest_wait_s=2)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.bin"


def interrupt(done, total):
    raise KeyboardInterrupt


def begin(urls, target):
    """Stop a first call early; returns how many bytes it left."""
    with pytest.raises(KeyboardInterrupt):
        download(urls, target, progress=interrupt, patience=HASTY)
    return target.with_name("file.bin.partial").stat().st_size


def assert_only_the_target_is_there(target):
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_next_call_goes_on_when_the_server_still_has_that_file(server, answers, target):
    server.routes["/f"] = [answers.ranged(DATA, etag='"1"')]
    n_kept = begin([server.url("/f")], target)
    download([server.url("/f")], target, patience=HASTY)
    assert server.ranges("/f") == [None, f"bytes={n_kept}-"]
    assert server.requests[1][1]["If-Range"] == '"1"'
    assert_only_the_target_is_there(target)


def test_a_file_that_changed_in_between_comes_whole(server, answers, target):
    server.routes["/f"] = [answers.ranged(b"o" * len(DATA), etag='"1"'), answers.ranged(DATA, etag='"2"')]
    begin([server.url("/f")], target)
    download([server.url("/f")], target, patience=HASTY)
    assert_only_the_target_is_there(target)


@pytest.mark.parametrize("etag", [None, 'W/"1"'], ids=["no ETag", "weak ETag"])
def test_without_a_proof_the_next_call_starts_over(server, answers, target, etag):
    server.routes["/f"] = [answers.ranged(DATA, etag=etag)]
    begin([server.url("/f")], target)
    download([server.url("/f")], target, patience=HASTY)
    assert server.ranges("/f") == [None, None]
    assert_only_the_target_is_there(target)


def test_the_mirror_that_began_is_asked_first_to_go_on(server, answers, target):
    server.routes["/mirror"] = [answers.ranged(DATA, etag='"1"')]
    urls = [server.url("/f"), server.url("/mirror")]
    n_kept = begin(urls, target)
    download(urls, target, patience=HASTY)
    assert server.ranges("/mirror") == [None, f"bytes={n_kept}-"]
    assert len(server.ranges("/f")) == 1
    assert_only_the_target_is_there(target)


def test_another_mirror_starts_over_when_that_one_is_gone(server, answers, target):
    server.routes["/f"] = [answers.ranged(b"o" * len(DATA), etag='"1"'), answers.body(b"", status=404)]
    server.routes["/mirror"] = [answers.ranged(DATA, etag='"1"')]
    urls = [server.url("/f"), server.url("/mirror")]
    begin(urls, target)
    download(urls, target, patience=HASTY)
    assert server.ranges("/mirror") == [None]
    assert_only_the_target_is_there(target)


def test_a_part_that_is_the_whole_is_recognised(server, answers, target):
    server.routes["/f"] = [answers.ranged(DATA, etag='"1"')]

    def stop_at_the_end(done, total):
        if done == len(DATA):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download([server.url("/f")], target, progress=stop_at_the_end)

    def is_whole(handler):
        headers = {"ETag": '"1"', "Content_Range": f"bytes */{len(DATA)}"}
        answers.body(b"", status=416, **headers)(handler)

    server.routes["/f"] = [is_whole]
    download([server.url("/f")], target, patience=HASTY)
    assert server.ranges("/f") == [None, f"bytes={len(DATA)}-"]
    assert_only_the_target_is_there(target)


def test_a_file_that_the_caller_refuses_comes_from_the_mirror(server, answers, target):
    server.routes["/f"] = [answers.body(b"bad")]
    server.routes["/mirror"] = [answers.body(DATA)]

    def look(path):
        return None if path.read_bytes() == DATA else "it is not what it should be"

    download([server.url("/f"), server.url("/mirror")], target, check=look, patience=HASTY)
    assert_only_the_target_is_there(target)
    with pytest.raises(DownloadError, match="it is not what it should be"):
        download([server.url("/f")], target, check=look, patience=HASTY)
    assert_only_the_target_is_there(target)
