"""Files of very many small pieces stay within the limits of time and memory.

Every limit that refuses one of them stands far above the largest real file; the last tests read such a one.
"""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scratchlm.assets.file_structure import TABLE_MAGIC, structure_problem
from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.store import load_model, load_tensors, save_tensors
from scratchlm.checkpoints.tensorflow.leveldb_table import read_table
from scratchlm.checkpoints.torch.numpy_archive import read_npz
from scratchlm.checkpoints.torch.torch_file import read_torch_file
from scratchlm.checkpoints.weight_files import open_weights
from scratchlm.core.errors import CheckpointError
from scratchlm.core.files import read_json
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from tests.checkpoints.tensorflow.writer import masked_crc32c, varint
from tests.faults.reading import read_within_limits

pytest.importorskip("gguf")  # imported now, so that its own code does not count as code that a file runs

Made = tuple[Path, Callable[[], object]]


def gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_of(*settings: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(settings)) + b"".join(settings)


def gguf_texts(texts: bytes, n: int, *, name: bytes = b"a") -> bytes:
    return gguf_text(name) + struct.pack("<IIQ", 9, 8, n) + texts


def gguf(folder: Path, data: bytes) -> Made:
    (folder / "a.gguf").write_bytes(data)
    return folder / "a.gguf", lambda: read_gguf(folder / "a.gguf")


def gguf_empty_texts(folder: Path) -> Made:
    return gguf(folder, gguf_of(gguf_texts(bytes(8 * 3_000_000), 3_000_000)))


def gguf_as_many_texts_as_allowed(folder: Path) -> Made:
    return gguf(folder, gguf_of(gguf_texts(gguf_text(b"ab") * 800_000, 800_000)))


def gguf_wide_texts(folder: Path) -> Made:
    """One character beyond 16 bits makes every other character take four bytes."""
    return gguf(folder, gguf_of(gguf_texts(gguf_text("\U0001f600".encode() + b"a" * 96) * 400_000, 400_000)))


def gguf_numbers(folder: Path) -> Made:
    return gguf(folder, gguf_of(gguf_text(b"a") + struct.pack("<IIQ", 9, 0, 38_000_000) + bytes(38_000_000)))


def gguf_settings(folder: Path) -> Made:
    return gguf(folder, gguf_of(*(gguf_text(b"%d" % i) + struct.pack("<IB", 0, 1) for i in range(60_000))))


def gguf_long_texts(folder: Path) -> Made:
    text = "\U0001f600".encode() + b"a" * 1_000_000
    settings = (gguf_text(b"%d" % i) + struct.pack("<I", 8) + gguf_text(text) for i in range(40))
    return gguf(folder, gguf_of(*settings))


def gguf_tensors(folder: Path) -> Made:
    names = (gguf_text(b"%d" % i) + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(60_000))
    data = b"GGUF" + struct.pack("<IQQ", 3, 60_000, 0) + b"".join(names)
    return gguf(folder, data + bytes(-len(data) % 32 + 32 * 60_000))


def safetensors_of(n: int) -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{i}": entry for i in range(n)}, separators=(",", ":")).encode()
    return struct.pack("<Q", len(header)) + header


def safetensors(folder: Path, read: Callable[[Path], object], n: int = 600_000) -> Made:
    (folder / "a.safetensors").write_bytes(safetensors_of(n))
    return folder / "a.safetensors", lambda: read(folder / "a.safetensors")


def safetensors_loaded(folder: Path) -> Made:
    return safetensors(folder, load_tensors)


def safetensors_opened(folder: Path) -> Made:
    return safetensors(folder, open_weights)


def safetensors_checked(folder: Path) -> Made:
    return safetensors(folder, lambda path: structure_problem(path, name=path.name))


def safetensors_as_many_as_allowed(folder: Path) -> Made:
    return safetensors(folder, lambda path: structure_problem(path, name=path.name), n=70_000)


def safetensors_read_one_by_one(folder: Path) -> Made:
    return safetensors(folder, lambda path: dict(open_weights(path)), n=10_000)


def json_file(folder: Path, name: str, text: str, read: Callable[[Path], object]) -> Made:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name, lambda: read(folder / name)


EMPTY_TABLES = "[" + ",".join(["{}"] * 7_000_000) + "]"


def manifest_of_empty_tables(folder: Path) -> Made:
    return json_file(folder, "manifest.json", EMPTY_TABLES, lambda path: load_model(path.parent))


def settings_as_long_as_allowed(folder: Path) -> Made:
    return json_file(folder, "config.json", EMPTY_TABLES[: 4 << 20], read_json)


def settings_with_as_many_values_as_allowed(folder: Path) -> Made:
    return json_file(folder, "config.json", EMPTY_TABLES[:300_000] + "{}]", read_json)


def tokenizer_of_empty_tables(folder: Path) -> Made:
    return json_file(folder, "tokenizer.json", EMPTY_TABLES, load_tokenizer)


def tokenizer_of_as_many_as_allowed(folder: Path) -> Made:
    return json_file(folder, "tokenizer.json", EMPTY_TABLES[:1_800_000] + "{}]", load_tokenizer)


def tokenizer_of_many_keys(folder: Path) -> Made:
    text = "{" + ",".join(f'"{i}":0' for i in range(1_000_000)) + "}"
    return json_file(folder, "tokenizer.json", text, load_tokenizer)


def tokenizer_of_as_many_keys_as_allowed(folder: Path) -> Made:
    text = "{" + ",".join(f'"{i}":0' for i in range(262_000)) + "}"
    return json_file(folder, "tokenizer.json", text, load_tokenizer)


def merges_as_long_as_allowed(folder: Path) -> Made:
    (folder / "encoder.json").write_text(json.dumps({"a": 0, "b": 1}))
    return json_file(
        folder,
        "vocab.bpe",
        "a b\n" * (1 << 20),
        lambda path: load_gpt2_tokenizer(folder / "encoder.json", path),
    )


def encoder_of_as_many_keys_as_allowed(folder: Path) -> Made:
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    text = "{" + ",".join(f'"{i}":{i}' for i in range(160_000)) + "}"
    return json_file(
        folder, "encoder.json", text, lambda path: load_gpt2_tokenizer(path, folder / "vocab.bpe")
    )


def merges_of_many_lines(folder: Path) -> Made:
    (folder / "encoder.json").write_text("{}")
    return json_file(
        folder,
        "vocab.bpe",
        "a b\n" * 10_000_000,
        lambda path: load_gpt2_tokenizer(folder / "encoder.json", path),
    )


def compressed_zeros(folder: Path) -> Made:
    np.savez_compressed(folder / "a.npz", w=np.zeros(52 << 20, np.uint8))
    return folder / "a.npz", lambda: read_npz(folder / "a.npz")


def too_many_compressed_zeros(folder: Path) -> Made:
    np.savez_compressed(folder / "a.npz", w=np.zeros(60 << 20, np.uint8))
    return folder / "a.npz", lambda: read_npz(folder / "a.npz")


def many_small_arrays(folder: Path) -> Made:
    np.savez(folder / "a.npz", **{f"a{i}": np.zeros(1, "<f4") for i in range(5_000)})
    return folder / "a.npz", lambda: read_npz(folder / "a.npz")


def table_of_keys(folder: Path, n: int) -> Made:
    """One block whose keys share all but their last bytes, each with an empty value."""
    entries = io.BytesIO()
    last = b""
    for i in range(n):
        key = b"%07d" % i
        shared = next((j for j in range(len(last)) if key[j] != last[j]), len(last))
        entries.write(bytes([shared, len(key) - shared, 0]) + key[shared:])
        last = key
    block = entries.getvalue() + struct.pack("<II", 0, 1)

    def stored(data: bytes) -> bytes:
        return data + b"\0" + struct.pack("<I", masked_crc32c(data + b"\0"))

    handle = varint(0) + varint(len(block))
    index = bytes([0, 1, len(handle)]) + b"z" + handle + struct.pack("<II", 0, 1)
    body = stored(block)
    footer = varint(0) + varint(0) + varint(len(body)) + varint(len(index))
    data = body + stored(index) + footer.ljust(40, b"\0") + TABLE_MAGIC
    (folder / "model.ckpt.index").write_bytes(data)
    return folder / "model.ckpt.index", lambda: read_table(folder / "model.ckpt.index")


def table_of_many_keys(folder: Path) -> Made:
    return table_of_keys(folder, 1_500_000)


def table_of_as_many_as_allowed(folder: Path) -> Made:
    return table_of_keys(folder, 65_000)


def pth_of_many_tensors(folder: Path) -> Made:
    weight = torch.zeros(1)
    torch.save({f"{i}": weight for i in range(8_000)}, folder / "a.pth")
    return folder / "a.pth", lambda: read_torch_file(folder / "a.pth")


FAST = (
    compressed_zeros,
    gguf_empty_texts,
    gguf_numbers,
    gguf_settings,
    encoder_of_as_many_keys_as_allowed,
    manifest_of_empty_tables,
    many_small_arrays,
    merges_of_many_lines,
    pth_of_many_tensors,
    safetensors_read_one_by_one,
    settings_as_long_as_allowed,
    settings_with_as_many_values_as_allowed,
    table_of_as_many_as_allowed,
    tokenizer_of_empty_tables,
    too_many_compressed_zeros,
)
SLOW = (
    gguf_as_many_texts_as_allowed,
    gguf_long_texts,
    gguf_tensors,
    gguf_wide_texts,
    safetensors_as_many_as_allowed,
    safetensors_checked,
    safetensors_loaded,
    safetensors_opened,
    merges_as_long_as_allowed,
    table_of_many_keys,
    tokenizer_of_as_many_as_allowed,
    tokenizer_of_as_many_keys_as_allowed,
    tokenizer_of_many_keys,
)


def keep_within_limits(folder: Path, make: Callable[[Path], Made]) -> None:
    path, read = make(folder)
    read_within_limits(read, size_bytes=path.stat().st_size, what=make.__name__)


@pytest.mark.parametrize("make", FAST, ids=lambda make: make.__name__)
def test_many_small_pieces_take_no_more_than_their_share(tmp_path, make):
    keep_within_limits(tmp_path, make)


@pytest.mark.slow
@pytest.mark.parametrize("make", SLOW, ids=lambda make: make.__name__)
def test_very_many_small_pieces_take_no_more_than_their_share(tmp_path, make):
    keep_within_limits(tmp_path, make)


def test_the_vocabulary_of_llama_3_is_far_from_the_limits(tmp_path):
    tokens = b"".join(gguf_text(b"%08d" % i) for i in range(128_256))
    merges = b"".join(gguf_text(b"%05d %05d" % (i % 99_999, i // 3)) for i in range(280_147))
    kinds = gguf_text(b"kinds") + struct.pack("<IIQ", 9, 5, 128_256) + struct.pack("<128256i", *[1] * 128_256)
    data = gguf_of(gguf_texts(tokens, 128_256, name=b"t"), gguf_texts(merges, 280_147, name=b"m"), kinds)
    (tmp_path / "a.gguf").write_bytes(data)
    found = GGUFFile(tmp_path / "a.gguf").metadata
    assert [len(found[name]) for name in ("t", "m", "kinds")] == [128_256, 280_147, 128_256]


def test_compressed_arrays_near_the_limit_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", w=np.arange(6 << 20))
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["w"].numpy(), np.arange(6 << 20))


def test_a_tensor_that_is_read_twice_is_no_second_name_for_the_same_numbers(tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3), "b": torch.ones(2)})
    weights = open_weights(tmp_path / "a.safetensors")
    first, other, second = weights["a"], weights["b"], weights["a"]
    first += 1
    assert second.tolist() == [0, 0, 0]
    assert other.tolist() == [1, 1]


def test_a_file_that_vanishes_between_two_tensors_is_our_error(tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    weights = open_weights(tmp_path / "a.safetensors")
    assert weights["a"].tolist() == [0, 0, 0]
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is not a valid safetensors file"):
        weights["a"]
