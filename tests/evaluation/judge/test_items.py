"""Files of answers: what is read, and where exactly it is wrong."""

import json

import pytest

from scratchlm.core.errors import ConfigError, DataError
from scratchlm.evaluation.judge.items import fingerprint, read_items, with_others

ENTRY = {"instruction": "Add.", "input": "1 and 2", "output": "3", "model_response": "4", "second": "3"}


def write(path, value):
    text = "".join(json.dumps(one) + "\n" for one in value) if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["answers.json", "answers.jsonl"])
def test_a_json_list_and_json_lines_read_alike(tmp_path, name):
    (item,) = read_items(write(tmp_path / name, [ENTRY]))
    assert (item.task, item.reference, item.answer, item.other) == ("Add.\n\n1 and 2", "3", "4", None)


def test_an_answer_is_found_under_another_key(tmp_path):
    path = write(tmp_path / "a.json", [ENTRY])
    (item,) = read_items(path, answer_key="second", other_key="model_response")
    assert (item.answer, item.other) == ("3", "4")


@pytest.mark.parametrize("folder", ["", "instruct/"])
def test_a_run_folder_gives_its_answers(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    write(tmp_path / folder / "answers.jsonl", [ENTRY | {"step": 3, "prompt": "?"}])
    assert len(read_items(tmp_path)) == 1


def test_a_folder_without_answers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="has none of them"):
        read_items(tmp_path)


@pytest.mark.parametrize("answer", ["", " \n", None])
def test_an_empty_answer_is_an_answer(tmp_path, answer):
    (item,) = read_items(write(tmp_path / "a.json", [ENTRY | {"model_response": answer}]))
    assert item.is_empty


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"instruction": "Add.", "output": "3"}, "entry 2 must have an answer under 'model_response'"),
        (ENTRY | {"model_response": 4}, "entry 2 must have text under 'model_response', got 4"),
        (ENTRY | {"instruction": " "}, "entry 2 must have text under 'instruction'"),
        (ENTRY | {"output": None}, "entry 2 must have text under 'output', got None"),
        ({"instruction": "Add.", "model_response": ""}, "entry 2 must have text under 'output', got only"),
        (ENTRY | {"input": 3}, "entry 2 must have text under 'input'"),
        (ENTRY | {"model_response": "\ud800"}, "lone surrogate"),
        ([], "entry 2 must be a JSON object, got list"),
    ],
)
def test_a_bad_entry_is_named_by_its_place(tmp_path, entry, complaint):
    with pytest.raises(DataError, match=complaint):
        read_items(write(tmp_path / "a.json", [ENTRY, entry]))


def test_a_line_that_is_no_json_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ENTRY) + "\n{\n")
    with pytest.raises(DataError, match="line 2 is not valid JSON"):
        read_items(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("content", "complaint"), [("[]", "got none"), ("{}", "must have text under 'instruction'")]
)
def test_a_file_without_entries_is_refused(tmp_path, content, complaint):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_items(tmp_path / "a.json")


def test_two_files_become_pairs_when_they_answer_the_same(make_item):
    items = [make_item("A", number=i) for i in range(3)]
    others = [make_item("B", number=i) for i in range(3)]
    assert [item.other for item in with_others(items, others)] == ["B"] * 3
    with pytest.raises(DataError, match="same order"):
        with_others(items, others[::-1])
    with pytest.raises(DataError, match="got 3 and 2"):
        with_others(items, others[:2])


def test_an_id_is_the_tasks_and_a_fingerprint_the_answers(make_item):
    one, two = make_item("A"), make_item("B")
    assert one.id == two.id != make_item("A", number=1).id
    assert fingerprint([one]) != fingerprint([two])


def test_thoughts_are_no_part_of_an_answer_or_a_reference(tmp_path, caplog):
    entries = [
        ENTRY | {"output": "<think>1+2</think>3", "model_response": "<think>1+2=4?</think>\n4"},
        ENTRY | {"model_response": "<think>1+2=4? 4"},
    ]
    first, second = read_items(write(tmp_path / "a.jsonl", entries))
    assert (first.reference, first.answer) == ("3", "4")
    assert second.is_empty
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "In 1 row the answer begins with a <think> block, which is not judged",
        "In 1 row the answer ends within its <think> block and counts as empty",
    ]
