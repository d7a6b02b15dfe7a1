from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from scratchlm.checkpoints.tensorflow.snappy import decompress
from scratchlm.core.errors import CheckpointError
from tests.checkpoints.tensorflow.golden.arrays import TEXT

COMPRESSED = (Path(__file__).parent / "golden" / "text.snappy").read_bytes()


def test_what_snappy_compressed_is_read_back():
    assert len(COMPRESSED) < len(TEXT) / 3
    assert decompress(COMPRESSED, where="here", max_bytes=1 << 20) == TEXT


def test_a_copy_may_overlap_itself():
    assert decompress(bytes([9, 0b0, ord("a"), 0b11110, 1, 0]), where="here", max_bytes=99) == b"a" * 9


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff\x0f",  # 4 GB out of five bytes
        b"\x05\x10ab",  # a literal beyond the end
        b"\x04\x01\x05",  # a copy from before the beginning
        b"\x09\x00a",  # fewer bytes than told
        b"\x01\x04ab",  # more bytes than told
        b"\x04\xf0",  # a length cut short
        b"\x04\x02\x01",  # a copy cut short
    ],
)
def test_damage_is_our_error(data):
    with pytest.raises(CheckpointError):
        decompress(data, where="here", max_bytes=1 << 20)


def test_more_than_allowed_is_refused_before_it_is_made():
    with pytest.raises(CheckpointError, match="bytes out of"):
        decompress(COMPRESSED, where="here", max_bytes=100)


def test_random_damage_is_our_error_or_bytes():
    dice = random.Random(5)
    for _ in range(500):
        content = bytearray(COMPRESSED)
        content[dice.randrange(len(content))] = dice.randrange(256)
        with contextlib.suppress(CheckpointError):
            decompress(bytes(content), where="here", max_bytes=1 << 20)
