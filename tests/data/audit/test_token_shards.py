import json

import numpy as np
import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.audit import token_shards
from scratchlm.data.audit.token_shards import shard_figures
from scratchlm.data.shards import open_tokens, prepare_tokens

TEXTS = ["The cat sat.", "The dog sat on the log.", "The mat.", "A log."]


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 6)
    (tmp_path / "a.jsonl").write_text(rows)
    return prepare_tokens(
        tmp_path / "a.jsonl", tiny_tokenizer, cache_folder=tmp_path, val_fraction=0.25, split_by="tail"
    ).folder


def test_counts_are_those_of_the_ids(folder):
    figures = shard_figures(folder, context_length=None)
    assert (figures["rows"], figures["unit"]) == (24, "documents")
    vocabulary = figures["vocabulary"]
    prepared = open_tokens(folder)
    ids, counts = np.unique(np.concatenate([prepared.train, prepared.val]), return_counts=True)
    assert vocabulary["used"] == len(ids)
    assert vocabulary["frequent"][0]["n"] == counts.max()
    assert vocabulary["end_of_text"] == 23  # between documents
    n_tokens = sum(split["tokens"] for split in figures["splits"])
    assert n_tokens == figures["lengths"]["total"] + 23


def test_documents_of_validation_that_stand_in_training_are_counted(folder):
    (pair,) = shard_figures(folder, context_length=None)["overlaps"]
    assert pair["exact"] == pair["rows"] - 1 > 0, "every text was written six times; a cut one is no copy"


def test_documents_that_were_split_whole_do_not_leak(tmp_path, tiny_tokenizer):
    rows = "".join(json.dumps({"text": f"{text} {i % 20}"}) + "\n" for i in range(80) for text in TEXTS)
    (tmp_path / "b.jsonl").write_text(rows)
    prepared = prepare_tokens(
        tmp_path / "b.jsonl", tiny_tokenizer, cache_folder=tmp_path, val_fraction=0.25, split_by="document"
    )
    figures = shard_figures(prepared.folder, context_length=6)
    sizes = [len(tiny_tokenizer.encode(json.loads(row)["text"])) for row in rows.splitlines()]
    assert (figures["lengths"]["n"], figures["lengths"]["total"]) == (320, sum(sizes))
    assert figures["truncation"]["longer"] == sum(size > 6 for size in sizes)
    (pair,) = figures["overlaps"]
    assert pair["rows"] > 0
    assert pair["exact"] == 0


def test_a_stretch_of_any_size_tells_the_same(folder, monkeypatch):
    whole = shard_figures(folder, context_length=4)
    for size in (1, 3, 7):
        monkeypatch.setattr(token_shards, "IDS_AT_ONCE", size)
        assert shard_figures(folder, context_length=4) == whole


def test_a_damaged_folder_is_an_error(folder):
    (folder / "train.bin").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="tokenise the text again"):
        shard_figures(folder, context_length=None)
