"""nanoGPT's token files: what they hold, whose ids they are, and a training on them."""

import json
import pickle

import numpy as np
import pytest

from scratchlm.cli.main import main
from scratchlm.core.errors import DataError, ScratchLMError
from scratchlm.data.shards import open_tokens, prepare_tokens, token_folder, tokenizer_of_tokens
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.word import LosslessWordTokenizer

TEXT = "Wo die Vögel singen,\n\tda laß dich ruhig nieder. 😀 " * 40


@pytest.fixture
def folder(tmp_path):
    """As its `prepare.py` for characters leaves it."""
    ids = {character: id_ for id_, character in enumerate(sorted(set(TEXT)))}
    data = np.array([ids[character] for character in TEXT], dtype=np.uint16)
    data[:1800].tofile(tmp_path / "train.bin")
    data[1800:].tofile(tmp_path / "val.bin")
    meta = {"vocab_size": len(ids), "itos": {id_: c for c, id_ in ids.items()}, "stoi": ids}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(meta))
    return tmp_path


def test_the_ids_are_the_text(folder):
    tokenizer = tokenizer_of_tokens(folder)
    tokens = open_tokens(folder, tokenizer)
    assert tokenizer.decode(tokens.train.tolist()) + tokenizer.decode(tokens.val.tolist()) == TEXT


def test_bytes_of_text_are_counted_for_bits_per_byte(folder):
    tokens = open_tokens(folder)
    counted = (tokens.train_n_bytes, tokens.val_n_bytes)
    assert counted == (len(TEXT[:1800].encode()), len(TEXT[1800:].encode()))


def test_bytes_of_byte_pairs_are_counted_and_ends_of_text_are_none(tmp_path):
    tokenizer = train_bpe([TEXT], 300, special_tokens=["<|endoftext|>"])
    ids = np.array([*tokenizer.encode(TEXT), tokenizer.end_of_text_id], dtype=np.uint16)
    for side in ("train", "val"):
        ids.tofile(tmp_path / f"{side}.bin")
    tokens = prepare_tokens(tmp_path, tokenizer, cache_folder=tmp_path / "cache")
    assert (tokens.train_n_bytes, tokens.n_documents) == (len(TEXT.encode()), 2)


@pytest.mark.parametrize("name", ["", "train.bin"])
def test_the_folder_and_its_training_file_name_the_same_data(folder, name):
    assert token_folder(folder / name) == folder


def test_ids_that_the_tokenizer_does_not_have_are_refused(folder):
    few = LosslessWordTokenizer({"a": 0, "b": 1})
    with pytest.raises(
        DataError, match=r"below 2, got \d+; name the tokenizer that made them with --tokenizer"
    ):
        open_tokens(folder, few)


@pytest.mark.parametrize("damage", ["missing", "empty", "odd"])
@pytest.mark.parametrize("side", ["train", "val"])
def test_a_damaged_file_is_named(folder, side, damage):
    file = folder / f"{side}.bin"
    file.write_bytes({"missing": b"", "empty": b"", "odd": b"abc"}[damage])
    if damage == "missing":
        file.unlink()
        if side == "train":
            assert token_folder(folder) is None  # then it is a folder of text
            return
    with pytest.raises(
        DataError, match=rf"{side}\.bin must hold nanoGPT's token ids of 2 bytes each, got [03]"
    ):
        open_tokens(folder)


@pytest.mark.parametrize("side", ["train", "val"])
def test_ids_of_four_bytes_are_not_read_as_twice_as_many(folder, side):
    file = folder / f"{side}.bin"
    np.fromfile(file, dtype=np.uint16).astype(np.uint32).tofile(file)
    with pytest.raises(DataError, match=rf"{side}\.bin .* every second one is 0, as in ids of 4 bytes"):
        open_tokens(folder)


class _Attack:
    def __reduce__(self):
        return print, ("code of the file ran",)


OTHER_KINDS = {
    "code": _Attack(),
    "code inside": {"stoi": _Attack()},
    "two letters": {"stoi": {"ab": 0}},
    "ids with a hole": {"stoi": {"a": 1}},
    "text as an id": {"stoi": {"a": "0"}},
    "a list": [1],
    "a number": 5,
    "empty": {},
}


@pytest.mark.parametrize("value", OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_a_meta_file_of_another_kind_is_our_error_and_runs_nothing(folder, value, capsys):
    (folder / "meta.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ScratchLMError, match=r"meta\.pkl"):
        tokenizer_of_tokens(folder)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("cut", [0, 1, 10, 100])
def test_a_meta_file_that_is_cut_short_is_our_error(folder, cut):
    (folder / "meta.pkl").write_bytes((folder / "meta.pkl").read_bytes()[:cut])
    with pytest.raises(ScratchLMError, match=r"meta\.pkl is not nanoGPT's"):
        tokenizer_of_tokens(folder)


def test_a_model_trained_on_them_writes_with_their_characters(folder, tmp_path, capsys):
    size = "--model.size tiny --model.emb-dim 8 --model.n-layers 1 --model.context-length 8 --max-steps 2"
    run = ["pretrain", "--data", str(folder), "--out", str(tmp_path / "run"), *size.split()]
    assert main([*run, "--sample-prompt", "Wo", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["vocab_size"], figures["train_tokens"]) == (len(set(TEXT)), 1800)
    assert figures["bytes_per_token"] == pytest.approx(len(TEXT[:1800].encode()) / 1800)
    assert main(["generate", "--model", str(tmp_path / "run"), "--prompt", "Vögel", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["text"]) <= set(TEXT)


def test_an_inspection_counts_their_ids(folder, capsys):
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["kind"], figures["vocabulary"]["used"]) == ("shards", len(set(TEXT)))
