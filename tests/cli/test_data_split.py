"""data split: the very split of finetune classify, as files; nothing else is overwritten."""

import json

import pytest

from scratchlm.cli.main import main
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.label_split import leak_free_split
from scratchlm.data.near_duplicates import group_near_duplicates
from scratchlm.data.samples.messages import sample_messages


@pytest.fixture
def messages(tmp_path):
    rows = sample_messages()
    path = tmp_path / "messages.tsv"
    path.write_text("".join(f"{row.label}\t{row.text}\n" for row in rows), encoding="utf-8")
    return path


def test_the_files_hold_the_split_that_finetuning_makes(messages, tmp_path, capsys):
    out = tmp_path / "split"
    assert main(["data", "split", "--data", str(messages), "--out", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = read_labelled(messages)
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    split = leak_free_split(texts, labels, group_near_duplicates(texts), seed=123)
    for side in ("train", "val", "test"):
        found = [(row.text, row.label) for row in read_labelled(out / f"{side}.jsonl")]
        assert found == [(texts[i], labels[i]) for i in getattr(split, side)]
        assert sum(figures[side].values()) == len(found)
    used = sum(sum(figures[side].values()) for side in ("train", "val", "test"))
    assert figures["rows"] == len(rows) == used + sum(figures["left_out"].values())


def test_an_earlier_split_is_replaced_and_anything_else_stays(messages, tmp_path, capsys):
    out = tmp_path / "split"
    command = ["data", "split", "--data", str(messages), "--out", str(out)]
    assert main(command) == 0
    assert main([*command, "--split-seed", "7"]) == 0
    (out / "notes.txt").write_text("mine")
    assert main(command) == 3
    assert "must be new or an earlier split" in capsys.readouterr().err
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("words", "missing"), [(["--out", "x"], "--data"), (["--data", "sample"], "--out")])
def test_what_is_missing_is_named(words, missing, capsys):
    assert main(["data", "split", *words]) == 2
    assert f"needs labelled texts and an output folder; add {missing}." in capsys.readouterr().err


@pytest.mark.parametrize("data", ["own/train.jsonl", "own", "own/*.jsonl", "."])
def test_the_data_itself_is_never_replaced(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "own" / "train.jsonl"
    mine.parent.mkdir()
    rows = [{"text": row.text, "label": row.label} for row in sample_messages()]
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    before = mine.read_bytes()
    assert main(["data", "split", "--data", data, "--out", "own"]) == 2
    assert "--out must be a folder apart from the data" in capsys.readouterr().err
    assert mine.read_bytes() == before


def test_one_class_is_refused(tmp_path, capsys):
    path = tmp_path / "one.tsv"
    path.write_text(
        "".join(f"ham\tmessage of the {word}\n" for word in ["sun", "moon", "star", "sea", "hill", "cat"])
    )
    assert main(["data", "split", "--data", str(path), "--out", str(tmp_path / "split")]) == 3
    assert "at least 2 classes, got only 'ham'" in capsys.readouterr().err
    assert not (tmp_path / "split").exists()
