import struct
from pathlib import Path

import pytest

from scratchlm.assets.file_structure import TABLE_MAGIC
from scratchlm.checkpoints.tensorflow.leveldb_table import read_table
from scratchlm.core.errors import CheckpointError
from tests.checkpoints.tensorflow.writer import masked_crc32c, varint

GOLDEN = Path(__file__).parent / "golden"


def entry(key: bytes, value: bytes, *, shared: int = 0) -> bytes:
    return varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value


def block_of(*entries: bytes, restarts: tuple[int, ...] = (0,)) -> bytes:
    return b"".join(entries) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def table(*blocks: tuple[bytes, bytes], kind: int = 0, checksum: int = 0) -> bytes:
    """A table of blocks, each given with its last key."""
    data, index = b"", []

    def add(block: bytes) -> bytes:
        nonlocal data
        handle = varint(len(data)) + varint(len(block))
        data += block + bytes([kind]) + struct.pack("<I", masked_crc32c(block + bytes([kind])) ^ checksum)
        return handle

    for last_key, block in blocks:
        index.append(entry(last_key, add(block)))
    footer = add(block_of()) + add(block_of(*index))
    return data + footer.ljust(40, b"\0") + TABLE_MAGIC


KEYS = {b"apple": b"1", b"apply": b"22", b"banana": b""}
TWO_BLOCKS = (
    (b"apply", block_of(entry(b"apple", b"1"), entry(b"apply", b"22", shared=4))),
    (b"banana", block_of(entry(b"banana", b""))),
)


def test_blocks_are_read_in_order(tmp_path):
    (tmp_path / "t").write_bytes(table(*TWO_BLOCKS))
    found = read_table(tmp_path / "t")
    assert found == KEYS
    assert list(found) == sorted(KEYS)


def test_tensorflows_own_index_has_several_blocks():
    assert len(read_table(GOLDEN / "kinds.ckpt.index")) == 300 + 15 + 2 + 1


def test_a_compressed_block_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(table(*TWO_BLOCKS, kind=1))
    with pytest.raises(CheckpointError, match="is compressed, which cannot be read"):
        read_table(tmp_path / "t")


LIES = {
    "empty": b"",
    "no footer": b"x" * 100,
    "wrong checksum": table(*TWO_BLOCKS, checksum=1),
    "keys out of order": table((b"b", block_of(entry(b"b", b""), entry(b"a", b"")))),
    "same key twice": table((b"b", block_of(entry(b"b", b""), entry(b"b", b"")))),
    "shares more than there is": table((b"b", block_of(b"\x05\x01\x00b"))),
    "entry beyond the block": table((b"b", block_of(b"\x00\x7f\x00b"))),
    "restarts beyond the block": table((b"b", struct.pack("<I", 1 << 30))),
    "handle beyond the file": block_of() + (varint(1 << 40) * 4).ljust(40, b"\0") + TABLE_MAGIC,
    "endless number": b"\xff" * 40 + TABLE_MAGIC,
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_table_is_an_error(name, tmp_path):
    (tmp_path / "t").write_bytes(LIES[name])
    with pytest.raises(CheckpointError, match="the LevelDB table is damaged"):
        read_table(tmp_path / "t")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path):
    long_key = b"k" * 30_000
    entries = [entry(long_key, b"")]
    entries += [varint(30_000 + i) + varint(1) + varint(0) + b"z" for i in range(30_000)]
    (tmp_path / "t").write_bytes(table((b"z", block_of(*entries))))
    with pytest.raises(CheckpointError, match="bytes of keys and values"):
        read_table(tmp_path / "t")
