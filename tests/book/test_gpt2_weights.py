"""GPT-2's weights under the book's names: which files are asked for, and what happens when one fails."""

import json

import numpy as np
import pytest

from scratchlm.assets.known_weights import FILES
from scratchlm.book import gpt2_weights
from scratchlm.core.errors import CheckpointError, ConfigError, DownloadError
from tests.assets.small_gpt2 import PLAIN_FILES, promise, table_of
from tests.checkpoints.tensorflow.writer import bundle

ARRAYS = {"model/wte": np.arange(12, dtype="<f4").reshape(3, 4), "model/h35/ln_1/g": np.ones(4, "<f4")}
INDEX, DATA = bundle(ARRAYS)
CONTENTS = {
    **PLAIN_FILES,
    "hparams.json": json.dumps(
        {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 1280, "n_head": 20, "n_layer": 36}
    ).encode(),
    "model.ckpt.data-00000-of-00001": DATA,
    "model.ckpt.index": INDEX,
}


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """The files of 774M in a folder of assets, small; no address of the table answers."""
    promise(monkeypatch, table_of(lambda asset_id: CONTENTS.get(asset_id.rpartition("/")[2], b"")))
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "class" / "gpt2" / "774M"
    folder.mkdir(parents=True)
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path / "class"))
    return folder


def test_all_seven_files_come_and_are_the_books_form(tmp_path, origin):
    settings, params = gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")
    assert settings == json.loads(CONTENTS["hparams.json"])
    np.testing.assert_array_equal(params["wte"], ARRAYS["model/wte"])
    assert params["blocks"][35]["ln_1"]["g"].tolist() == [1, 1, 1, 1]
    made = {path.name for path in (tmp_path / "gpt2" / "774M").iterdir() if path.suffix != ".sha256"}
    assert made == set(FILES["openai"])


def test_with_all_files_in_place_no_server_is_asked(tmp_path, origin, monkeypatch):
    gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")
    monkeypatch.delenv("SCRATCHLM_ASSETS")
    gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("is_remembered", [True, False], ids=["remembered", "put there"])
def test_a_wrong_file_that_is_there_is_fetched_again_with_a_message(
    tmp_path, origin, caplog, name, is_remembered
):
    folder = tmp_path / "gpt2" / "774M"
    if is_remembered:
        gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"?" * len(CONTENTS[name]))
    gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")
    assert (folder / name).read_bytes() == CONTENTS[name]
    assert f"{folder / name} is damaged and is fetched again" in caplog.text


def test_a_failed_download_is_an_error_and_leaves_no_file(tmp_path, origin, monkeypatch):
    monkeypatch.delenv("SCRATCHLM_ASSETS")
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9"):
        gpt2_weights.download_and_load_gpt2("774M", tmp_path / "gpt2")
    assert not [path for path in (tmp_path / "gpt2").rglob("*") if path.is_file()]


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="124M, 355M, 774M, 1558M, got '125M'"):
        gpt2_weights.download_and_load_gpt2("125M", tmp_path)


def test_settings_without_the_number_of_blocks_are_refused(tmp_path, origin, monkeypatch):
    monkeypatch.setattr(gpt2_weights, "read_json", lambda path, error: [])
    with pytest.raises(CheckpointError, match="must hold n_layer"):
        gpt2_weights.download_and_load_gpt2("774M", tmp_path)


def test_settings_without_the_number_of_blocks_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"n_layer as an integer, got None"):
        gpt2_weights.load_gpt2_params_from_tf_ckpt(tmp_path / "model.ckpt", {"n_layers": 12})
