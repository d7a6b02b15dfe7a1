"""GPT-2's weights under the book's names: which files are asked for, and what happens when one fails."""

from __future__ import annotations

import json

import pytest

from scratchlm.book import gpt2_weights
from scratchlm.core.errors import CheckpointError, ConfigError, DownloadError

SETTINGS = {"n_vocab": 61, "n_ctx": 12, "n_embd": 16, "n_head": 4, "n_layer": 2}


@pytest.fixture
def fetched(tmp_path, monkeypatch) -> list[str]:
    """Assets come out of a folder instead of the network, and the arrays are the file's path."""
    asked: list[str] = []

    def fetch(asset_id: str):
        asked.append(asset_id)
        path = tmp_path / "cache" / asset_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(SETTINGS))
        return path

    monkeypatch.setattr(gpt2_weights, "fetch_asset", fetch)
    monkeypatch.setattr(gpt2_weights, "open_bundle", lambda prefix: prefix)
    monkeypatch.setattr(gpt2_weights, "params_from_bundle", lambda bundle, n: {"blocks": [{}] * n})
    return asked


def test_only_missing_files_are_fetched(tmp_path, fetched, capsys):
    folder = tmp_path / "gpt2" / "124M"
    folder.mkdir(parents=True)
    (folder / "vocab.bpe").write_text("mine")
    settings, params = gpt2_weights.download_and_load_gpt2("124M", tmp_path / "gpt2")
    assert (settings, len(params["blocks"])) == (SETTINGS, 2)
    assert fetched == [f"gpt2/124M/{name}" for name in gpt2_weights.FILES if name != "vocab.bpe"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(gpt2_weights.FILES)
    assert (folder / "vocab.bpe").read_text() == "mine"
    gpt2_weights.download_and_load_gpt2("124M", tmp_path / "gpt2")
    assert len(fetched) == 6  # nothing was asked for again


def test_without_links_files_are_copied(tmp_path, fetched, monkeypatch, capsys):
    def no_links(*_):
        raise OSError("no links here")

    monkeypatch.setattr(gpt2_weights.os, "link", no_links)
    gpt2_weights.download_and_load_gpt2("355M", tmp_path)
    assert json.loads((tmp_path / "355M" / "hparams.json").read_text()) == SETTINGS


def test_a_failed_download_is_an_error_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    def fail(asset_id):
        raise DownloadError("no network")

    monkeypatch.setattr(gpt2_weights, "fetch_asset", fail)
    with pytest.raises(DownloadError, match="no network"):
        gpt2_weights.download_and_load_gpt2("124M", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="124M, 355M, 774M, 1558M, got '125M'"):
        gpt2_weights.download_and_load_gpt2("125M", tmp_path)


def test_damaged_settings_are_refused(tmp_path, fetched, capsys):
    folder = tmp_path / "124M"
    folder.mkdir()
    (folder / "hparams.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold n_layer"):
        gpt2_weights.download_and_load_gpt2("124M", tmp_path)
