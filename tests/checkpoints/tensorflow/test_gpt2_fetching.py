"""GPT-2's data file has no published sha256: it is accepted only if every tensor matches its checksum in the index."""

import numpy as np
import pytest

from scratchlm.assets.known_weights import gpt2_files, gpt2_size
from scratchlm.checkpoints.tensorflow.bundle import data_problem
from scratchlm.checkpoints.tensorflow.gpt2_fetching import DATA, INDEX, fetch_gpt2_file
from scratchlm.core.errors import DataError
from tests.checkpoints.tensorflow.writer import bundle, write_bundle

ARRAYS = {"model/wte": np.arange(12, dtype="<f4").reshape(3, 4), "model/wpe": np.ones((2, 4), "<f4")}
ASSET = gpt2_files(gpt2_size("774M"), "openai")[-1]


@pytest.fixture
def class_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path))
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "gpt2" / "774M"
    folder.mkdir(parents=True)
    write_bundle(folder / "model.ckpt", ARRAYS)
    return folder


def test_a_data_file_that_fits_its_index_is_believed(class_folder):
    assert fetch_gpt2_file(ASSET) == class_folder / DATA


@pytest.mark.parametrize("change", ["one bit", "a byte more", "a byte less"])
def test_a_data_file_that_does_not_fit_is_refused(class_folder, change):
    data = bytearray(bundle(ARRAYS)[1])
    if change == "one bit":
        data[-1] ^= 128
    (class_folder / DATA).write_bytes(
        {"a byte more": data + b"0", "a byte less": data[:-1]}.get(change, data)
    )
    with pytest.raises(DataError, match="index"):
        fetch_gpt2_file(ASSET)


def test_without_the_index_nothing_is_believed(class_folder):
    (class_folder / INDEX).unlink()
    with pytest.raises(DataError, match="fetch that first"):
        fetch_gpt2_file(ASSET)


def test_what_our_writer_writes_our_reader_finds_whole(class_folder):
    assert data_problem(class_folder / DATA, prefix=class_folder / "model.ckpt") is None
