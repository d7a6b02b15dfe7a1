"""`weights list` and `weights fetch`: known weights, from a folder of this machine instead of the network."""

import hashlib
import json
import struct

import numpy as np
import pytest

from scratchlm.assets.known_weights import FILES, GPT2_ASSETS
from scratchlm.cli.main import main
from tests.assets.small_gpt2 import PLAIN_FILES, promise, table_of
from tests.checkpoints.tensorflow.writer import bundle

HEADER = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
INDEX, DATA = bundle({"model/wte": np.arange(6, dtype="<f4")})
SETTINGS = {asset.id: dict(asset.settings) for asset in GPT2_ASSETS if asset.settings}
CONTENTS = {
    "model.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    **PLAIN_FILES,
    "model.ckpt.index": INDEX,
    "model.ckpt.data-00000-of-00001": DATA,
}


def content(asset_id: str) -> bytes:
    if asset_id in SETTINGS:
        return json.dumps(SETTINGS[asset_id]).encode()
    return CONTENTS.get(asset_id.rpartition("/")[2], b'{"id": "%s"}' % asset_id.encode())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of assets with every file of GPT-2, small; no address of the table answers."""
    promise(monkeypatch, table_of(content))
    monkeypatch.delenv("SCRATCHLM_MIRROR", raising=False)
    for asset in GPT2_ASSETS:
        path = tmp_path / "class" / asset.id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(asset.id))
    monkeypatch.setenv("SCRATCHLM_ASSETS", str(tmp_path / "class"))
    return tmp_path / "class"


def said(capsys, *args: str) -> dict:
    assert main([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_list_names_every_size_in_both_forms(capsys, folder):
    rows = said(capsys, "weights", "list")["weights"]
    assert [(row["name"], row["source"]) for row in rows] == [
        (name, source)
        for name in ("gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl")
        for source in ("hf", "openai")
    ]
    assert all(row["here"] and row["path"] == str(folder / "gpt2" / row["names"][-1]) for row in rows)


def test_the_list_says_what_is_not_here_and_what_nobody_has_published(capsys):
    rows = said(capsys, "weights", "list")["weights"]
    assert not any(row["here"] or row["path"] for row in rows)
    by_name = {(row["name"], row["source"]): row for row in rows}
    assert by_name["gpt2-small", "hf"]["size_bytes"] == 548_105_171 + 665
    assert by_name["gpt2-large", "hf"]["size_bytes"] is None
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert "gpt2, 124M" in shown
    assert "unknown" in shown


@pytest.mark.parametrize("name", ["gpt2-small", "gpt2", "124M"])
def test_weights_from_the_folder_of_assets_cost_no_request(capsys, folder, name):
    fetched = said(capsys, "weights", "fetch", name)["fetched"]
    assert [row["path"] for row in fetched] == [
        str(folder / "gpt2" / "124M" / file) for file in ("config.json", "model.safetensors")
    ]
    assert {row["verified"] for row in fetched} == {"published sha256"}


def test_dir_has_the_layout_of_the_book(capsys, folder, tmp_path):
    assert main(["weights", "fetch", "355M", "--source", "openai", "--dir", "gpt2"]) == 0
    made = tmp_path / "work" / "gpt2" / "355M"
    assert {path.name for path in made.iterdir() if path.suffix != ".sha256"} == set(FILES["openai"])
    for file in FILES["openai"]:
        assert (made / file).read_bytes() == content(file if file in CONTENTS else f"gpt2/355M/{file}")
    printed = capsys.readouterr()
    assert "gpt2/355M/model.ckpt.index" in printed.out.splitlines()
    assert "no published sha256 is known" in printed.err


def test_trust_on_first_use_is_told(capsys, folder, tmp_path):
    fetched = said(capsys, "weights", "fetch", "gpt2-large", "--dir", "gpt2")["fetched"]
    assert {row["verified"] for row in fetched} == {"first use"}
    weights = next(row for row in fetched if row["id"].endswith(".safetensors"))
    assert weights["sha256"] == hashlib.sha256(CONTENTS["model.safetensors"]).hexdigest()
    record = tmp_path / "work" / "gpt2" / "774M" / "model.safetensors.sha256"
    assert record.read_text().split() == [weights["sha256"], "model.safetensors"]


def test_several_names_are_fetched_in_turn(capsys, folder):
    fetched = said(capsys, "weights", "fetch", "gpt2-small", "gpt2-xl")["fetched"]
    assert [row["id"].split("/")[1] for row in fetched] == ["124M", "124M", "1558M", "1558M"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "weights fetch needs the name of a model"),
        (["gpt3"], 2, "did you mean 'gpt2'"),
        (["gpt2", "--source", "torrent"], 2, "torrent"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, args, code, message):
    assert main(["weights", "fetch", *args]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_no_address_that_answers_is_a_download_error(capsys, folder, monkeypatch):
    monkeypatch.delenv("SCRATCHLM_ASSETS")
    assert main(["weights", "fetch", "gpt2"]) == 4
    assert "http://127.0.0.1:9/nothing" in capsys.readouterr().err


def test_help_tells_of_the_mirror(capsys):
    with pytest.raises(SystemExit):
        main(["weights", "fetch", "--help"])
    assert "SCRATCHLM_MIRROR=http://host/path" in capsys.readouterr().out
