from __future__ import annotations

import json

import pytest

from scratchlm.data.audit import rows as rows_module
from scratchlm.data.audit.rows import Reading, usable_rows
from scratchlm.data.classification import read_labelled
from scratchlm.data.instructions import read_instructions
from scratchlm.data.rows import RowSettings


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
    assert complaint.startswith(f"{path} line 2, text, must be Unicode text, found a lone surrogate")
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
    assert "one column for the label, found 'text'; name it with --label-field" in reading.complaints[0]
    assert "line 3 must have a label, found None" in reading.complaints[1]


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
    monkeypatch.setattr(rows_module, "LONGEST_PARAGRAPH_CHARS", 50)
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
