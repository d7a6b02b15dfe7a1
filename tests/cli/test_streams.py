"""Text from a pipe, in whatever locale the shell is."""

import os
import subprocess
import sys

import pytest

READERS = {"read_text": "print(ascii(read_text()))", "read_lines": "print(ascii(list(read_lines())))"}


def read_in_own_process(reader: str, data: bytes, locale: str) -> subprocess.CompletedProcess[bytes]:
    script = f"from scratchlm.cli.streams import *; {READERS[reader]}"
    env = {**os.environ, "LANG": locale, "LC_ALL": locale, "PYTHONIOENCODING": ""}
    return subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, env=env, check=False
    )


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
@pytest.mark.parametrize("reader", READERS)
def test_bytes_that_are_not_utf8_are_refused_in_every_locale(reader, locale):
    done = read_in_own_process(reader, b"caf\xe9 au lait\n", locale)
    assert done.returncode == 1
    assert b"DataError: standard input is not utf-8 text: byte 0xe9" in done.stderr


@pytest.mark.parametrize("reader", READERS)
def test_utf8_is_read_in_the_c_locale(reader):
    done = read_in_own_process(reader, "café\nund\n".encode(), "C")
    assert done.returncode == 0, done.stderr
    assert b"caf\\xe9" in done.stdout


@pytest.mark.parametrize("reader", READERS)
def test_the_byte_order_mark_of_windows_is_no_text(reader):
    done = read_in_own_process(reader, "\ufeffone\r\n\ufefftwo\r\n".encode(), "C.UTF-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith((b"'one", b"['one'"))
    assert b"\\ufefftwo" in done.stdout, "only the first is a mark"
