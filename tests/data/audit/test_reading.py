import gzip
import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.data.audit import reading as reading_module
from scratchlm.data.audit.reading import (
    Reading,
    checked_kind,
    detect_kind,
    kind_of_keys,
    stream_figures,
    usable_rows,
)
from scratchlm.data.classification_rows import read_labelled
from scratchlm.data.instruction_rows import read_instructions
from scratchlm.data.row_files import RowSettings
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
        ("a.json", '[{"text": "a"}, {', "is not valid JSON"),
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


def read(path, kind, **settings):
    reading = Reading()
    return list(usable_rows(path, kind, reading, **settings)), reading


def test_sms_rows_are_those_that_training_reads(real_data):
    path = real_data / "sms_spam_collection" / "SMSSpamCollection"
    found, reading = read(path, "classification")
    assert [(row.fields["text"], row.fields["label"]) for row in found] == [
        (row.text, row.label) for row in read_labelled(path)
    ]
    assert reading.n_unusable == 0


def test_instruction_rows_are_those_that_training_reads(real_data):
    path = real_data / "instruction" / "instruction-data.json"
    found, reading = read(path, "instruction")
    assert [row.entry for row in found] == read_instructions(path)
    assert reading.n_unusable == 0


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_a_bad_row_is_counted_and_the_others_still_come(tmp_path, name):
    content = {
        "a.tsv": "text\tlabel\none\tham\nno tab\n \tspam\ntwo\tspam\n",
        "a.csv": 'Text,Label\n"one",ham\nonly one cell\n,spam\ntwo,spam\n',
        "a.jsonl": '{"text": "one", "label": "ham"}\nbroken\n{"text": " ", "label": 1}\n'
        '{"text": "two", "label": "spam"}\n',
    }[name]
    path = tmp_path / name
    path.write_text(content)
    found, reading = read(path, "classification")
    assert [(row.fields["text"], row.fields["label"]) for row in found] == [("one", "ham"), ("two", "spam")]
    assert (reading.n_unusable, len(reading.complaints)) == (2, 2)
    assert all(str(path) in complaint for complaint in reading.complaints)
    assert reading.refusal == reading.complaints[0]


def test_half_a_character_is_a_row_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "label": "ham"}\n{"text": "two \\ud83d", "label": "ham"}\n')
    found, reading = read(path, "classification")
    assert [row.fields["text"] for row in found] == ["one"]
    [complaint] = reading.complaints
    assert complaint.startswith(f"{path} line 2, text, is not valid Unicode: a lone surrogate")
    path.write_text(
        '{"instruction": "Say it", "output": "\\ud83d"}\n{"instruction": "Say it", "output": "yes"}\n'
    )
    found, reading = read(path, "instruction")
    assert ([row.fields["output"] for row in found], reading.n_unusable) == (["yes"], 1)


def test_a_number_is_a_label_and_a_missing_field_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "label": 3}\n{"text": "two"}\n{"text": "x", "label": null}\n')
    found, reading = read(path, "classification")
    assert [row.fields["label"] for row in found] == ["3"]
    assert "one column for the label, got 'text'; name it with --label-field" in reading.complaints[0]
    assert "line 3 has None as its label" in reading.complaints[1]


def test_dollys_names_are_understood(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"instruction": "Say", "context": "it", "response": "yes", "category": "x"}))
    (row,), _ = read(path, "instruction")
    assert (row.key, row.text) == ("Say\nit", "Say\nit\nyes")
    assert row.entry.output == "yes"


def test_preferences_of_messages_are_rows_with_all_that_was_said_as_the_request(tmp_path):
    def said(*texts):
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]

    path = tmp_path / "pairs.jsonl"
    good = {
        "chosen": said("Hi", "Hello.", "A colour?", "Red."),
        "rejected": said("Hi", "Hello.", "A colour?", "7"),
    }
    bad = {"chosen": said("A", "B"), "rejected": said("C", "D")}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", encoding="utf-8")
    (row,), reading = read(path, "preference")
    assert row.fields == {
        "instruction": "Hi\nHello.\nA colour?",
        "input": "",
        "chosen": "Red.",
        "rejected": "7",
    }
    assert reading.notes.sentences() == [
        f"In 1 row chosen and rejected answer different requests: the row is left out ({path} line 2)."
    ]


def test_preference_rows_need_two_answers(tmp_path):
    path = tmp_path / "a.json"
    rows = [
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"},
        {"instruction": "Hi", "input": None, "output": "", "chosen": "A", "rejected": "B"},
        {"prompt": "Hi", "chosen": [{"role": "user"}], "rejected": []},
        "text",
    ]
    path.write_text(json.dumps(rows))
    found, reading = read(path, "preference")
    assert [dict(row.fields) for row in found] == [
        {"instruction": "Hi", "input": "", "chosen": "Hello.", "rejected": "What?"},
        {"instruction": "Hi", "input": "", "chosen": "A", "rejected": "B"},
    ]
    assert found[0].key == "Hi"
    assert "entry 3, chosen, message 1 must be an object" in reading.complaints[0]
    assert "entry 4 must be a JSON object, got str" in reading.complaints[1]


def test_plain_text_comes_in_paragraphs_with_their_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n\none\ntwo\r\n\r\n \nthree \xff\n")
    found, reading = read(path, "text")
    assert [(row.text, row.where) for row in found] == [
        ("one\ntwo", f"{path} line 3"),
        ("three \ufffd", f"{path} line 7"),
    ]
    assert reading.faults.n_invalid == 1


def test_text_without_an_empty_line_is_cut_at_line_ends_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(reading_module, "MAX_PARAGRAPH_CHARS", 50)
    path = tmp_path / "a.txt"
    text = "".join(f"line number {i}\n" for i in range(40)) + "w" * 300
    path.write_text(text)
    found, _ = read(path, "text")
    assert "".join(row.text for row in found).replace("\n", "") == text.replace("\n", "")
    assert max(len(row.text) for row in found) < 100


def test_documents_of_jsonl_and_parquet_are_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "one\\n\\ntwo"}\n{"story": ""}\n{"story": "three"}\n')
    found, reading = read(tmp_path / "a.jsonl", "text", settings=RowSettings(text_field="story"))
    assert [row.text for row in found] == ["one\n\ntwo", "three"]
    assert (reading.n_unusable, reading.faults.n_lf) == (1, 3)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": ["x y", "z"]}), tmp_path / "b.parquet")
    found, _ = read(tmp_path / "b.parquet", "text")
    assert [row.text for row in found] == ["x y", "z"]


def test_training_takes_good_files_and_says_why_not_of_bad_ones(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('[{"instruction": "a", "output": "b"}]')
    bad.write_text('[{"instruction": "", "output": "b"}]')
    assert read(good, "instruction")[1].refusal is None
    found, reading = read(bad, "instruction")
    assert found == []
    assert "no request has text" in reading.notes.sentences()[0]


def test_the_verdict_has_the_books_number_of_tokens(real_data):
    from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    told = stream_figures(real_data / "text" / "the-verdict.txt", tokenizer, RowSettings())
    assert told["refused"] is None
    assert (told["stream"]["tokens"], told["stream"]["characters"]) == (5145, 20479)  # the book, chapter 2


def test_documents_bytes_and_characters_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "né"}\n{"text": "two"}\n')
    told = stream_figures(tmp_path, None, RowSettings())["stream"]
    assert (told["documents"], told["characters"], told["bytes"], told["tokens"]) == (2, 5, 6, None)


def test_what_pretraining_says_against_a_file_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    told = stream_figures(tmp_path / "a.txt", None, RowSettings())
    assert told["stream"] is None
    assert "is not UTF-8 text: byte 0xe9 at byte offset 3" in told["refused"]
