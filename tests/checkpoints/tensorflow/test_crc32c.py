from __future__ import annotations

import numpy as np
import pytest

from scratchlm.checkpoints.tensorflow.crc32c import crc32c, masked_crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data, expected):
    assert crc32c(data) == expected


def one_bit_at_a_time(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("n_bytes", [1, 7, 63, 64, 65, 1023, 4096, 65_535, 65_536, 65_537])
def test_any_length_equals_the_definition(n_bytes):
    data = np.random.default_rng(n_bytes).integers(0, 256, n_bytes, dtype=np.uint8)
    assert crc32c(data) == one_bit_at_a_time(data.tobytes())


def test_several_chunks_equal_one_after_the_other():
    data = np.arange(9_000_000, dtype=np.uint32).view(np.uint8)[:8_500_001]
    changed = data.copy()
    changed[3] ^= 1
    assert crc32c(data) == crc32c(data.tobytes()) != crc32c(changed)


def test_the_mask_is_leveldbs():
    # leveldb/util/crc32c.h: rotate right by 15 bits, add 0xa282ead8
    assert masked_crc32c(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
