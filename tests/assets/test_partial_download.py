"""The partial file: one owner at a time, and no byte in it that nothing can prove."""

import subprocess
import sys
import threading
import time

import pytest

from scratchlm.assets.partial_download import open_partial
from scratchlm.core.errors import DownloadError

ORIGIN = ("http://127.0.0.1/f", '"1"')


@pytest.fixture
def target(tmp_path):
    return tmp_path / "file.bin"


def fill(target, data, *, origin=None, sha256=None):
    with open_partial(target, size_bytes=None, sha256=sha256) as partial:
        partial.note_origin(origin)
        partial.file.write(data)


def kept(target, *, size_bytes=None, sha256=None):
    with open_partial(target, size_bytes=size_bytes, sha256=sha256) as partial:
        return partial.n_bytes, partial.origin()


def test_bytes_without_a_proof_are_dropped(target):
    fill(target, b"abc")
    assert kept(target) == (0, None)


def test_bytes_with_a_known_origin_or_a_sha256_are_kept(target):
    fill(target, b"abc", origin=ORIGIN)
    assert kept(target) == (3, ORIGIN)
    assert kept(target, sha256="0" * 64)[0] == 3


def test_a_damaged_note_of_the_origin_proves_nothing(target):
    fill(target, b"abc", origin=ORIGIN)
    target.with_name("file.bin.partial.origin").write_text('{"url": 3}')
    assert kept(target) == (0, None)


def test_more_bytes_than_promised_are_dropped(target):
    fill(target, b"abc", origin=ORIGIN)
    assert kept(target, size_bytes=2)[0] == 0


def test_an_empty_part_leaves_nothing_behind(target):
    fill(target, b"", origin=ORIGIN)
    assert list(target.parent.iterdir()) == []


def test_the_finished_file_leaves_nothing_else_behind(target):
    with open_partial(target, size_bytes=3, sha256=None) as partial:
        partial.note_origin(ORIGIN)
        partial.file.write(b"abc")
        assert partial.problem() is None
        partial.take_name(target)
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]
    assert target.read_bytes() == b"abc"


def test_the_caller_may_look_at_the_whole_file(target):
    with open_partial(target, size_bytes=3, sha256=None, check=lambda path: f"{path.name} is odd") as partial:
        partial.file.write(b"abc")
        assert partial.problem() == "file.bin.partial is odd"


def test_who_comes_second_waits_for_the_first(target):
    has_it = threading.Event()

    def first():
        with open_partial(target, size_bytes=None, sha256="0" * 64) as partial:
            has_it.set()
            time.sleep(0.3)
            partial.file.write(b"abc")

    thread = threading.Thread(target=first)
    thread.start()
    assert has_it.wait(5)
    with open_partial(target, size_bytes=None, sha256="0" * 64, wait_s=5) as partial:
        assert partial.has_waited
        assert partial.n_bytes == 3
    thread.join()


def test_patience_with_the_first_ends(target):
    with (
        open_partial(target, size_bytes=None, sha256=None),
        pytest.raises(DownloadError, match=r"another process is downloading .*file\.bin\.partial"),
        open_partial(target, size_bytes=None, sha256=None, wait_s=0.2),
    ):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_the_lock_of_a_killed_process_is_free(target):
    code = (
        "import sys, time; from pathlib import Path; from scratchlm.assets.partial_download import open_partial\n"
        "with open_partial(Path(sys.argv[1]), size_bytes=None, sha256='0' * 64) as partial:\n"
        "    partial.file.write(b'abc'); partial.file.flush(); print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(DownloadError):
            kept(target, sha256="0" * 64)
        process.kill()
        process.wait()
        assert kept(target, sha256="0" * 64)[0] == 3
