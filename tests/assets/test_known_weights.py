"""The table of GPT-2's weights: complete, safe, and honest about what is not known."""

import hashlib
import json
import re

import pytest

from scratchlm.assets.known_datasets import ASSETS
from scratchlm.assets.known_weights import FILES, GPT2_ASSETS, GPT2_SIZES, gpt2_files, gpt2_size
from scratchlm.assets.registry import asset_path, find_assets
from scratchlm.core.errors import ConfigError, DataError

BY_ID = {asset.id: asset for asset in GPT2_ASSETS}


def test_every_size_has_every_file_of_both_sources():
    expected = {f"gpt2/{s.folder}/{file}" for s in GPT2_SIZES for files in FILES.values() for file in files}
    assert set(BY_ID) == expected
    assert len(GPT2_ASSETS) == len(expected) == 4 * 9


@pytest.mark.parametrize("asset", GPT2_ASSETS, ids=lambda asset: asset.id)
def test_addresses_are_pinned_and_promises_well_formed(asset):
    folder, file = asset.id.split("/")[1:]
    assert all(url.startswith("https://") and url.endswith(f"/{file}") for url in asset.urls)
    if "huggingface.co" in asset.urls[0]:
        assert re.search(r"/openai-community/gpt2[a-z-]*/resolve/[0-9a-f]{40}/", asset.urls[0])
        assert asset.urls[1] == asset.urls[0].replace("huggingface.co", "hf-mirror.com")
    else:
        assert asset.urls[0].startswith("https://openaipublic.blob.core.windows.net/gpt-2/models/")
        assert asset.urls[1] == f"https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2/{folder}/{file}"
    assert asset.sha256 is None or re.fullmatch("[0-9a-f]{64}", asset.sha256)
    assert asset.size_bytes is None or asset.size_bytes > 0


def test_the_weights_of_a_size_take_four_bytes_per_parameter():
    for size in GPT2_SIZES:
        n_bytes = BY_ID[f"gpt2/{size.folder}/model.ckpt.data-00000-of-00001"].size_bytes
        assert n_bytes in (None, 4 * size.n_parameters)
        n_bytes = BY_ID[f"gpt2/{size.folder}/model.safetensors"].size_bytes
        assert n_bytes is None or n_bytes > 4 * size.n_parameters  # with the causal masks


@pytest.mark.parametrize(
    ("file", "data"),  # what OpenAI's two shortest files say, which anyone who has them can read
    [
        ("checkpoint", b'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'),
        (
            "hparams.json",
            json.dumps(
                {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}, indent=2
            ).encode()
            + b"\n",
        ),
    ],
)
def test_the_promises_of_the_short_files_follow_from_their_text(file, data):
    asset = BY_ID[f"gpt2/124M/{file}"]
    assert (asset.size_bytes, asset.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_tokenizer_of_each_size_is_the_one_we_know():
    known = {asset.id.partition("/")[2]: asset for asset in ASSETS if asset.id.startswith("gpt2_bpe/")}
    for size in GPT2_SIZES:
        for file, asset in known.items():
            found = BY_ID[f"gpt2/{size.folder}/{file}"]
            assert (found.size_bytes, found.sha256) == (asset.size_bytes, asset.sha256)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("gpt2", "124M"),
        ("gpt2-small", "124M"),
        ("124m", "124M"),
        ("gpt2-medium", "355M"),
        ("355M", "355M"),
        ("GPT2-large", "774M"),
        ("1558M", "1558M"),
        ("gpt2-xl", "1558M"),
    ],
)
def test_every_usual_name_is_understood(name, folder):
    assert gpt2_size(name).folder == folder


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'gpt2-xl'"):
        gpt2_size("gpt2-xll")


def test_the_large_file_comes_last():
    for size in GPT2_SIZES:
        assert gpt2_files(size, "hf")[-1].id.endswith("model.safetensors")
        assert gpt2_files(size, "openai")[-1].id.endswith("-of-00001")


def test_a_folder_name_finds_the_files_of_a_size():
    assert [a.id for a in find_assets("gpt2/124M")] == [i for i in BY_ID if i.startswith("gpt2/124M/")]


def test_weights_that_are_not_here_name_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRATCHLM_HOME", str(tmp_path))
    monkeypatch.delenv("SCRATCHLM_ASSETS", raising=False)
    with pytest.raises(DataError, match="scratchlm weights fetch gpt2-medium --source openai"):
        asset_path("gpt2/355M/model.ckpt.index")
