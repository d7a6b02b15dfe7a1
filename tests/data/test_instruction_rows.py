import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.data.instruction_rows import Instruction, instruction_of, read_instructions
from scratchlm.data.instruction_split import split_held_out, split_in_order
from scratchlm.data.row_fields import RowNotes

ENTRIES = [Instruction(instruction=f"Do {i}.", input="", output=str(i)) for i in range(200)]


def test_json_and_jsonl_give_the_same_entries(tmp_path):
    values = [
        {"instruction": "Rewrite.", "input": "a  b", "output": "a b", "skill": "rewriting", "id": 7},
        {"instruction": "Greet.", "output": ""},
        {"instruction": "Greet.", "input": None, "output": "Höi"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(values), encoding="utf-8")
    lines = "\n\n".join(json.dumps(value, ensure_ascii=False) for value in values)
    (tmp_path / "a.jsonl").write_text(lines, encoding="utf-8")
    expected = [
        Instruction(instruction="Rewrite.", input="a  b", output="a b", skill="rewriting"),
        Instruction(instruction="Greet.", input="", output=""),
        Instruction(instruction="Greet.", input="", output="Höi"),
    ]
    assert read_instructions(tmp_path / "a.json") == expected
    assert read_instructions(tmp_path / "a.jsonl") == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"instruction": "a", "output": "b"}, 5]', "entry 2 must be a JSON object, got int"),
        ("a.json", '[{"instruction": "a"}]', "entry 1 must have text under 'output', got only 'instruction'"),
        (
            "a.json",
            '[{"instruction": " ", "output": "b"}]',
            r"got 1 rows of which none can be used; .* In 1 row no request has text: the row is left out \(.*entry 1\)",
        ),
        ("a.json", '[{"instruction": "a", "output": 4}]', "entry 1 must have text under 'output', got 4"),
        ("a.json", '[{"instruction": "a", "input": [], "output": ""}]', "under 'input'"),
        ("a.json", "[]", "must hold instruction entries, got 0 rows of which none can be used"),
        ("a.json", "[", "is not valid JSON"),
        ("a.jsonl", '{"instruction": "a", "output": "b"}\n{"instr', "line 2 is not valid JSON"),
        ("a.jsonl", '\n{"output": "b"}', "line 2 must have text under 'instruction', got only 'output'"),
        ("a.jsonl", "", "must hold instruction entries, got 0 rows of which none can be used"),
    ],
)
def test_an_entry_that_does_not_fit_is_named_by_its_number(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_instructions(tmp_path / name)
    assert name in str(caught.value)


def test_the_books_file_splits_as_in_the_book(real_data):
    entries = read_instructions(real_data / "instruction" / "instruction-data.json")
    split = split_in_order(entries)
    assert (len(split.train), len(split.test), len(split.val)) == (935, 110, 55)  # chapter 7
    assert [*split.train, *split.test, *split.val] == entries
    assert sum(entry.input == "" for entry in entries) == 775


def test_splits_that_leave_a_part_empty_are_refused():
    with pytest.raises(DataError, match="got 3 for training, 1 for validation and 0 for test out of 4"):
        split_in_order(ENTRIES[:4])
    with pytest.raises(DataError, match="0 for test"):
        split_held_out(ENTRIES, [False] * 200)
    with pytest.raises(DataError, match="200 entries and 1 marks"):
        split_held_out(ENTRIES, [True])


@given(st.integers(0, 50))
def test_marked_entries_test_and_adding_others_moves_nothing(seed):
    marks = [i % 10 == 0 for i in range(200)]
    split = split_held_out(ENTRIES, marks, seed=seed)
    assert split.test == ENTRIES[::10]
    assert sorted(map(repr, [*split.train, *split.val, *split.test])) == sorted(map(repr, ENTRIES))
    new = Instruction(instruction="New.", input="", output="")
    longer = split_held_out([new, *ENTRIES], [False, *marks], seed=seed)
    assert [entry for entry in longer.val if entry != new] == split.val


def test_equal_entries_never_sit_in_both_training_and_validation():
    split = split_held_out(ENTRIES * 2, [i == 0 for i in range(400)])
    assert not set(split.train) & set(split.val)


def test_half_a_surrogate_pair_is_named_by_file_and_entry(tmp_path):
    path = tmp_path / "entries.json"
    path.write_text('[{"instruction": "a", "output": "b"}, {"instruction": "a", "output": "\\ud800"}]')
    with pytest.raises(DataError, match=r"entries.json entry 2, output, is not valid Unicode: a lone"):
        read_instructions(path)


def test_what_is_left_out_is_collected_or_logged(tmp_path, caplog):
    path = tmp_path / "entries.json"
    rows = [{"prompt": "a", "completion": "", "id": 3}, {"prompt": "", "completion": "b", "id": 4}]
    path.write_text(json.dumps(rows))
    told = [
        f"In 1 row an answer is empty; training uses it unchanged ({path} entry 1).",
        f"In 1 row no request has text: the row is left out ({path} entry 2).",
        "Fields not used: id.",
    ]
    notes = RowNotes()
    assert read_instructions(path, notes=notes) == [Instruction(instruction="a", input="", output="")]
    assert (notes.sentences(), caplog.messages) == (told, [])
    read_instructions(path)
    assert caplog.messages == told


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q", "answer": "a"}, {}),
        ({"query": "q", "response": "a"}, {}),
        ({"system_prompt": "S", "question": "q", "response": "a"}, {"system": "S"}),
        ({"instruction": "q", "input": None, "output": "a", "text": "Below ... q a"}, {}),
        ({"Instruction": "q", "Context": "i", "Response": "a"}, {"input": "i"}),
        ({"instruction": "q", "output": "a", "history": [["b", "c"]]}, {"history": (("b", "c"),)}),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}, {}),
        ({"prompt": [{"role": "user", "content": "q"}], "completion": "a"}, {}),
        ({"prompt": "q", "completion": {"role": "assistant", "content": "a"}}, {}),
        ({"system": "S", "messages": [["q", "a"]]}, {"system": "S"}),
        ({"conversations": ["q", "a"], "source": "lima"}, {}),
        ({"conversation": [{"input": "b", "output": "c"}, {"input": "q", "output": "a"}]}, {"history": (("b", "c"),)}),
        ({"prompt": "q", "messages": [["q", "a"], ["q", "a"]]}, {"history": (("q", "a"),)}),
    ],
)  # fmt: skip
def test_the_forms_of_published_sets_are_entries(row, expected):
    entry = instruction_of(row, where="here", notes=RowNotes())
    assert entry == Instruction(**{"instruction": "q", "input": "", "output": "a", **expected})


def test_a_table_may_hold_conversations_as_json(tmp_path):
    path = tmp_path / "chats.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "messages"])
        for i in range(3):
            messages = [
                {"role": "user", "content": f'Say "{i}", please'},
                {"role": "assistant", "content": "a\nb"},
            ]
            table.writerow([i, json.dumps(messages)])
    assert read_instructions(path) == [
        Instruction(instruction=f'Say "{i}", please', input="", output="a\nb") for i in range(3)
    ]
