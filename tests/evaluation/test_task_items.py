"""Benchmark files in their published forms, and what is wrong with others."""

import json
import re

import pytest

from scratchlm.core.errors import DataError
from scratchlm.evaluation.task_items import ChoiceItem, read_task_items


@pytest.fixture
def read(tmp_path):
    def read_rows(*rows, **settings):
        path = tmp_path / "task.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_task_items(path, **settings)

    return read_rows


def test_the_last_word_of_a_lambada_text_is_asked_for(read):
    kind, (item,) = read({"text": "the dog looked at the cat \n"})
    assert kind == "cloze"
    assert (item.context, item.target) == ("the dog looked at the", " cat")


def test_a_hellaswag_row_becomes_the_text_that_the_harness_asks(read):
    row = {
        "activity_label": "Baking",
        "ctx": "A hen bakes. she",
        "ctx_a": "A hen bakes.",
        "ctx_b": "she",
        "endings": ["eats [step] it.", "sleeps.", "runs.", "sings."],
        "label": "2",
    }
    kind, (item,) = read(row)
    assert kind == "choice"
    assert item.context == "Baking: A hen bakes. She"
    assert item.choices[0] == "eats it."
    assert (item.answer, item.delimiter) == (2, " ")


def test_an_arc_row_finds_its_answer_by_label(read):
    row = {"question": "Q?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "3"}
    kind, (item,) = read(row)
    assert (kind, item.context, item.answer) == ("choice", "Question: Q?\nAnswer:", 2)


@pytest.mark.parametrize("answer", [1, "blue"])
def test_a_plain_choice_names_its_answer_by_number_or_text(read, answer):
    _, (item,) = read({"prompt": "The sky is", "choices": ["red", "blue"], "answer": answer})
    assert item == ChoiceItem(
        context="The sky is", delimiter=" ", choices=("red", "blue"), answer=1, origin=item.origin
    )


def test_no_second_space_after_a_prompt_that_ends_in_one(read):
    _, (item,) = read({"prompt": "Sky:\n", "choices": ["red", "blue"], "answer": 0})
    assert item.delimiter == ""


def test_a_generation_row_may_have_several_answers(read):
    kind, items = read({"prompt": "1+1=", "answer": "2"}, {"question": "1+2=", "answer": ["3", "three"]})
    assert kind == "generation"
    assert [item.answers for item in items] == [("2",), ("3", "three")]


def test_a_solution_of_gsm8k_asks_for_its_final_number(read):
    kind, items = read(
        {"question": "How many?", "answer": "He has 7*10=<<7*10=70>>70.\n#### 1,070"},
        {"question": "How many?", "answer": -7},
        {"prompt": "Q: How many?\nA:", "answer": "#### 7"},
    )
    assert kind == "generation"
    assert [item.number for item in items] == [1070, -7, 7]
    assert [item.prompt for item in items] == ["Question: How many?\nAnswer:"] * 2 + ["Q: How many?\nA:"]


def test_a_json_list_and_a_limit(tmp_path):
    path = tmp_path / "task.json"
    path.write_text(json.dumps([{"text": f"word number {i}"} for i in range(5)]))
    assert len(read_task_items(path, limit=3)[1]) == 3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"label": 1}, "must have text"),
        ({"text": "one"}, "at least two words"),
        ({"ctx": "a", "endings": ["b", "c"], "label": ""}, "name the correct one"),
        ({"ctx": "a", "endings": ["b", "c"], "label": 2}, "name the correct one"),
        ({"prompt": "a", "choices": ["b"], "answer": 0}, "at least two choices"),
        ({"prompt": "a", "choices": ["b", 3], "answer": 0}, "list of texts"),
        ({"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}, "label every"),
        ({"prompt": "a", "answer": []}, "must have an answer"),
        ({"prompt": " ", "answer": "x"}, "must have text in 'prompt'"),
        ({"prompt": "a", "answer": float("nan")}, "must have text in 'answer', got nan"),
        (["a"], "JSON object"),
    ],
)
def test_an_unusable_row_is_named_with_its_line(read, row, words):
    with pytest.raises(DataError, match=words) as error:
        read(row)
    assert re.search("line 1|entry 1", str(error.value))


def test_every_row_must_be_of_the_first_ones_kind(read):
    with pytest.raises(DataError, match="line 2"):
        read({"text": "a b"}, {"prompt": "a", "answer": "b"})


def test_no_rows_are_an_error(read):
    with pytest.raises(DataError, match="got none"):
        read()


def test_a_row_of_another_kind_is_told_as_such(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x", "choices": ["a", "b"], "answer": 0}\n{"text": "a b"}\n')
    with pytest.raises(DataError, match="line 2 must have choices or endings, got 'text'"):
        read_task_items(path)


def test_a_text_that_two_choices_have_names_neither(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x", "choices": ["a", "a", "b"], "answer": "a"}\n')
    with pytest.raises(DataError, match="got 'a', which occurs twice"):
        read_task_items(path)
    path.write_text('{"prompt": "x", "choices": ["a", "a", "b"], "answer": 1}\n')
    assert read_task_items(path)[1][0].answer == 1


def test_one_arc_question_alone_in_a_file_is_no_table_of_choices(read):
    row = {"question": "Who?", "choices": {"text": ["a cat", "a hen"], "label": ["A", "B"]}, "answerKey": "B"}
    kind, (item,) = read(row)
    assert (kind, item.choices, item.answer) == ("choice", ("a cat", "a hen"), 1)
