from __future__ import annotations

import gzip
import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.audit.detect import checked_kind, detect_kind, kind_of_keys
from scratchlm.data.shards import prepare_tokens

SMS = "ham\tSee you at six\nspam\tWIN a prize\nham\tok\n"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", "Once upon a time.\n\nThe end.\n", "text"),
        ("a", SMS, "classification"),
        ("a.tsv", "ham\tone", "classification"),
        ("a.txt", SMS, "classification"),
        ("a.txt", "one\tfield\nno tab here\n", "text"),
        ("a.txt", "".join(f"column{i}\tall differ\n" for i in range(100)), "text"),
        ("a.csv", 'Label,"Text"\nham,hello\n', "classification"),
        ("a.csv", "v1,v2\nham,hello\n", "classification"),
        ("a.txt", "Category;Message\nham;hello, you\n", "classification"),
        ("a", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "classification"),
        ("a.json", json.dumps([{"instruction": "Add", "input": "", "output": "1"}]), "instruction"),
        ("a.jsonl", json.dumps({"instruction": "a", "context": "", "response": "b"}) + "\n", "instruction"),
        ("a.jsonl", json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n", "preference"),
        (
            "a.json",
            json.dumps([{"instruction": "a", "output": "", "chosen": "b", "rejected": "c"}]),
            "preference",
        ),
        ("a.jsonl", "\nbroken\n" + json.dumps({"text": "a", "label": 1}) + "\n", "classification"),
        ("a.jsonl", json.dumps({"text": "a", "meta": {}}) + "\n", "text"),
        ("a.parquet", "PAR1", "text"),
    ],
)
def test_the_kind_is_seen_in_name_and_content(tmp_path, name, content, kind):
    path = tmp_path / name
    path.write_text(content)
    assert detect_kind(path) == kind


def test_a_zipped_file_is_looked_into(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(SMS.encode()))
    (tmp_path / "b.gz").write_bytes(gzip.compress(SMS.encode()))
    assert detect_kind(tmp_path / "a.tsv.gz") == detect_kind(tmp_path / "b.gz") == "classification"


def test_folders_are_text_and_token_folders_are_shards(tmp_path, tiny_tokenizer):
    (tmp_path / "a.txt").write_text("The cat sat on the mat. " * 50)
    assert detect_kind(tmp_path) == "text"
    folder = prepare_tokens(tmp_path / "a.txt", tiny_tokenizer, cache_folder=tmp_path).folder
    assert {detect_kind(path) for path in (folder, folder / "header.json", folder / "train.bin")} == {
        "shards"
    }


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", '{"story": "x"}', "got the fields 'story'"),
        ("a.csv", "v7,v8\nham,hi there\nspam,hi you\nspam,go now\nham,a b", "got the fields 'v7', 'v8'"),
        ("a.json", '[{"text": "a"}, {', "must be JSON"),
        ("a.json", "[]", r"got the fields \(none\)"),
    ],
)
def test_rows_of_no_known_kind_are_an_error_that_names_the_keys(tmp_path, name, content, complaint):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        detect_kind(path)


def test_a_kind_by_name_must_be_a_known_one():
    assert checked_kind("text") == "text"
    with pytest.raises(ConfigError, match="kind must be auto or one of text, classification"):
        checked_kind("poem")
    assert kind_of_keys({"TEXT ": 1, "Label": 2}, where="a") == "classification"
