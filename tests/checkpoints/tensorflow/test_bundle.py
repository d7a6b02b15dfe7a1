"""Read files that TensorFlow wrote (golden/make_golden.py), intact and damaged."""

import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from scratchlm.checkpoints.tensorflow import bundle as bundle_module
from scratchlm.checkpoints.tensorflow import leveldb_table
from scratchlm.checkpoints.tensorflow.bundle import open_bundle
from scratchlm.core.errors import CheckpointError
from tests.checkpoints.tensorflow.golden.arrays import BFLOAT16, gpt2, kinds
from tests.checkpoints.tensorflow.writer import varint

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def copy(tmp_path):
    """A copy of a golden checkpoint that a test may damage; its prefix."""

    def make(name: str) -> Path:
        for file in GOLDEN.glob(f"{name}.*"):
            shutil.copy(file, tmp_path / file.name)
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("name", "arrays"), [("gpt2.ckpt", gpt2), ("kinds.ckpt", kinds), ("sharded.ckpt", kinds)]
)
def test_every_tensor_is_what_tensorflow_saved(name, arrays):
    bundle = open_bundle(GOLDEN / name)
    for key, expected in arrays().items():
        assert bundle[key].dtype == expected.dtype
        np.testing.assert_array_equal(bundle[key], expected)


def test_the_names_are_those_of_the_file():
    assert set(open_bundle(GOLDEN / "gpt2.ckpt")) == set(gpt2())
    assert set(open_bundle(GOLDEN / "kinds.ckpt")) == set(kinds()) | {"bfloat16", "string"}


def test_two_data_files_are_used_as_one_checkpoint():
    assert len(list(GOLDEN.glob("sharded.ckpt.data-*-of-00002"))) == 2


def test_bfloat16_becomes_float32():
    array = open_bundle(GOLDEN / "kinds.ckpt")["bfloat16"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array(BFLOAT16, np.float32))


def test_strings_are_refused_when_asked_for_only():
    with pytest.raises(CheckpointError, match="holds string of TensorFlow's type 7"):
        open_bundle(GOLDEN / "kinds.ckpt")["string"]


def test_arrays_are_mapped_and_read_only():
    array = open_bundle(GOLDEN / "gpt2.ckpt")["model/wte"]
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1.0


def test_a_changed_number_is_found_by_its_checksum(copy):
    prefix = copy("gpt2.ckpt")
    data = prefix.with_name("gpt2.ckpt.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointError, match="model/wte differs from its checksum"):
        open_bundle(prefix)["model/wte"]


def test_missing_files_are_named(copy):
    prefix = copy("sharded.ckpt")
    prefix.with_name("sharded.ckpt.data-00001-of-00002").unlink()
    with pytest.raises(CheckpointError, match=r"data-00001-of-00002 cannot be read"):
        open_bundle(prefix)
    prefix.with_name("sharded.ckpt.index").unlink()
    with pytest.raises(CheckpointError, match=r"sharded\.ckpt\.index"):
        open_bundle(prefix)


def test_a_data_file_cut_short_is_found_before_anything_is_read(copy):
    prefix = copy("gpt2.ckpt")
    data = prefix.with_name("gpt2.ckpt.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="is cut short"):
        open_bundle(prefix)


@pytest.mark.parametrize("at", [0, 100, 600, -1])
def test_a_changed_index_is_found(copy, at):
    prefix = copy("gpt2.ckpt")
    index = prefix.with_name("gpt2.ckpt.index")
    content = bytearray(index.read_bytes())
    content[at] ^= 0x40
    index.write_bytes(content)
    with pytest.raises(CheckpointError):
        open_bundle(prefix)


@pytest.mark.parametrize("is_checked", [True, False])
def test_random_damage_ends_in_our_error_or_in_arrays(copy, is_checked, monkeypatch):
    if not is_checked:
        monkeypatch.setattr(leveldb_table, "has_checksum", lambda *_: True)
    prefix = copy("gpt2.ckpt")
    index = prefix.with_name("gpt2.ckpt.index")
    good = index.read_bytes()
    dice = random.Random(7)
    for _ in range(300):
        content = bytearray(good)
        for _ in range(dice.choice((1, 3))):
            content[dice.randrange(len(content) - 8)] = dice.randrange(256)
        index.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            bundle = open_bundle(prefix)
            for name in bundle:
                bundle[name]


def test_an_empty_tensor_of_an_endless_shape_is_refused():
    def entry(shape):
        sizes = [b"\x08" + varint(n) for n in shape]
        dimensions = b"".join(b"\x12" + varint(len(size)) + size for size in sizes)
        return b"\x08\x01\x12" + varint(len(dimensions)) + dimensions  # float32, of that shape, of 0 bytes

    found = {"a": bundle_module._read_entry(entry((0, 5)), "x", 1)}
    assert bundle_module.TensorFlowBundle(found, {})["a"].shape == (0, 5)
    with pytest.raises(CheckpointError, match="the shape"):
        bundle_module._read_entry(entry((0, 1 << 39, 1 << 39)), "x", 1)
