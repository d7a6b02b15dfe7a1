"""Preference files: both kinds of entries, what is left out, and a word about every broken one."""

import json

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_split import split_in_order
from scratchlm.data.preference_rows import Preference, preference_of, read_preferences
from scratchlm.data.row_fields import RowNotes

PROMPT = {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "Seven."}
BOOK = {
    "instruction": "Say it politely.", "input": "Give me tea.", "output": "Tea, please.",
    "rejected": "Tea. Now.", "chosen": "May I have some tea?",
}  # fmt: skip


def written(tmp_path, content, name="pairs.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_both_kinds_of_entries_are_read(tmp_path):
    found = read_preferences(written(tmp_path, [PROMPT, BOOK]))
    assert found.n_equal == 0
    assert found.pairs == [
        Preference(instruction="Name a colour.", input="", chosen="Red.", rejected="Seven."),
        Preference(
            instruction="Say it politely.", input="Give me tea.", chosen="May I have some tea?",
            rejected="Tea. Now.",
        ),
    ]  # fmt: skip


def test_lines_are_read_like_a_list(tmp_path):
    lines = f"{json.dumps(PROMPT)}\n\n{json.dumps(BOOK)}\n"
    as_list = read_preferences(written(tmp_path, [PROMPT, BOOK]))
    assert read_preferences(written(tmp_path, lines, "pairs.jsonl")) == as_list


def test_pairs_of_equal_answers_are_left_out_and_counted(tmp_path):
    found = read_preferences(written(tmp_path, [PROMPT, {**PROMPT, "rejected": "Red."}, BOOK]))
    assert (len(found.pairs), found.n_equal) == (2, 1)
    with pytest.raises(DataError, match="In 1 row chosen is equal to rejected"):
        read_preferences(written(tmp_path, [{**PROMPT, "rejected": "Red."}]))


def said(*texts, system=None):
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *messages] if system else messages


def test_lists_of_messages_are_read_in_every_form_they_come_in(tmp_path):
    whole = {
        "prompt": "ignored, since both lists hold it",
        "chosen": said("Hi", "Hello.", "A colour?", "Red.", system="Be brief."),
        "rejected": said("Hi", "Hello.", "A colour?", "Seven.", system="Be brief."),
    }
    apart = {
        "prompt": said("Hi", "Hello.", "A colour?", system="Be brief."),
        "chosen": [{"role": "assistant", "content": "Red."}],
        "rejected": [{"role": "assistant", "content": "Seven."}],
    }
    (one, other) = read_preferences(written(tmp_path, [whole, apart])).pairs
    assert one == other
    assert (one.instruction, one.chosen, one.rejected, one.system) == (
        "A colour?",
        "Red.",
        "Seven.",
        "Be brief.",
    )
    assert [tuple(exchange) for exchange in one.history] == [("Hi", "Hello.")]
    short = {**apart, "prompt": "A colour?"}
    (pair,) = read_preferences(written(tmp_path, [short])).pairs
    assert pair == Preference(instruction="A colour?", input="", chosen="Red.", rejected="Seven.")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"chosen": said("A", "B"), "rejected": said("C", "D")}, "chosen and rejected answer different requests"),
        ({"chosen": said("A", "B"), "rejected": "D"}, "entry 1 must have both answers as texts or both as mess"),
        ({"chosen": said("A"), "rejected": said("A")}, "In 1 row no request has an answer: the row is left out"),
        ({"prompt": 3, "chosen": said("A", "B")[1:], "rejected": said("A", "C")[1:]}, "under 'prompt', got 3"),
        ({"chosen": said("A", "B")[1:], "rejected": said("A", "C")[1:]}, "text under 'instruction', got only"),
    ],
)  # fmt: skip
def test_a_broken_list_of_messages_is_named(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        read_preferences(written(tmp_path, [entry]))


def without(entry, key):
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            without(PROMPT, "rejected"),
            r"entry 2 must have text under 'rejected', got only 'prompt', 'chosen'",
        ),
        (without(BOOK, "chosen"), r"entry 2 must have text under 'chosen'"),
        (without(PROMPT, "prompt"), r"text under 'instruction', got only 'chosen', 'rejected'"),
        ({**PROMPT, "chosen": 7}, r"text under 'chosen', got 7"),
        (
            {**PROMPT, "chosen": ["Red."], "rejected": []},
            r"chosen, message 1 must be an object with role and content, got 'Red\.'",
        ),
        ({**PROMPT, "chosen": [], "rejected": []}, "must have an answer under 'chosen', got no messages"),
        ({**BOOK, "input": 5}, r"text under 'input', got 5"),
        ("Red.", r"entry 2 must be a JSON object, got str"),
        ({}, "got only no field"),
    ],
)
def test_a_broken_entry_is_named_with_what_it_holds(tmp_path, entry, message):
    with pytest.raises(DataError, match=message):
        read_preferences(written(tmp_path, [PROMPT, entry]))
    if isinstance(entry, dict):
        lines = f"{json.dumps(PROMPT)}\n{json.dumps(entry)}"
        with pytest.raises(DataError, match=message.replace("entry 2", "line 2")):
            read_preferences(written(tmp_path, lines, "pairs.jsonl"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold pairs of different answers, got 0 rows of which none can be used"),
        ("{}", "got only no field"),
        ('[{"prompt": 1,]', "is not valid JSON"),
    ],
)
def test_a_file_without_entries_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_preferences(written(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chosen": ""}, "the chosen or the rejected answer is empty"),
        ({"rejected": " "}, "the chosen or the rejected answer is empty"),
        ({"prompt": "  "}, "no request has text"),
    ],
)
def test_a_pair_without_all_its_texts_is_left_out_and_counted(tmp_path, change, told):
    notes = RowNotes()
    path = written(tmp_path, [PROMPT, {**PROMPT, **change}])
    assert len(read_preferences(path, notes=notes).pairs) == 1
    assert notes.sentences() == [f"In 1 row {told}: the row is left out ({path} entry 2)."]


HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A colour?\n\nAssistant: "


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": HH + "Red.", "rejected": HH + "Seven."},  # Anthropic's
        {"prompt": HH, "chosen": "Red.", "rejected": "Seven."},
        {"chosen": HH.replace("\n", "\r\n") + "Red.", "rejected": HH.replace("\n", "\r\n") + "Seven."},
        {"prompt": HH.replace("\n", "\r\n"), "chosen": "Red.", "rejected": "Seven."},
        {
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."},
                              {"from": "human", "value": "A colour?"}],
            "chosen": {"from": "gpt", "value": "Red."},
            "rejected": {"from": "gpt", "value": "Seven."},
        },
        {"question": "A colour?", "history": [["Hi", "Hello."]], "chosen": "Red.", "rejected": "Seven."},
        {
            "prompt": "Hi", "prompt_id": "7f", "messages": said("Hi", "Hello.", "A colour?", "Red."),
            "chosen": said("Hi", "Hello.", "A colour?", "Red."),
            "rejected": said("Hi", "Hello.", "A colour?", "Seven."),
        },
    ],
)  # fmt: skip
def test_the_forms_of_published_pairs_are_the_same_pair(row):
    assert preference_of(row, where="here", notes=RowNotes()) == Preference(
        instruction="A colour?",
        input="",
        chosen="Red.",
        rejected="Seven.",
        history=(Exchange("Hi", "Hello."),),
    )


def test_orca_pairs_keep_their_system_prompt():
    row = {"system": "Be brief.", "question": "A colour?", "chosen": "Red.", "rejected": "Seven."}
    pair = preference_of(row, where="here", notes=RowNotes())
    assert (pair.system, pair.instruction) == ("Be brief.", "A colour?")


def test_one_labelled_answer_is_refused_by_the_name_of_its_form(tmp_path):
    with pytest.raises(DataError, match=r"one answer labelled good or bad \(KTO's form\), got label=False"):
        read_preferences(written(tmp_path, [{"prompt": "a", "completion": "b", "label": False}]))


def pairs(n):
    return [Preference(instruction=str(i), input="", chosen="a", rejected="b") for i in range(n)]


def test_the_split_is_the_books():
    split = split_in_order(pairs(1100))
    assert (len(split.train), len(split.test), len(split.val)) == (935, 110, 55)
    assert [*split.train, *split.test, *split.val] == pairs(1100)


def test_a_part_without_pairs_is_refused():
    with pytest.raises(DataError, match="7 for training, 2 for validation and 0 for test out of 9"):
        split_in_order(pairs(9))
    assert len(split_in_order(pairs(10)).test) == 1


def test_a_request_becomes_an_instruction_with_either_answer():
    [pair] = pairs(1)
    entry = pair.with_answer("c")
    assert (entry.instruction, entry.input, entry.output) == ("0", "", "c")


@pytest.mark.parametrize("key", ["instruction", "input", "chosen", "rejected"])
def test_half_a_surrogate_pair_is_named_by_file_and_entry(tmp_path, key):
    entry = {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d", key: "x\ud800"}
    path = written(tmp_path, [entry])
    with pytest.raises(DataError, match=rf"entry 1, {key}, is not valid Unicode: a lone surrogate"):
        read_preferences(path)
