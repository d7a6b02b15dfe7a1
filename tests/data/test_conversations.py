import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.errors import DataError
from scratchlm.data.conversations import Exchange, Turn, conversation_of, read_turns
from scratchlm.data.instruction_rows import Instruction, read_instructions
from scratchlm.data.row_fields import RowNotes


def said(*turns: tuple[str, str]) -> list[dict]:
    return [{"role": role, "content": content} for role, content in turns]


def turns_of(value, **settings):
    return read_turns(value, where="f.json entry 3", notes=RowNotes(), **settings)


def conversation(*turns: tuple[str, str], system: str = ""):
    """The exchanges, and what is said about the row."""
    notes = RowNotes()
    found = conversation_of([Turn(*turn) for turn in turns], system=system, where="here", notes=notes)
    return found, notes.sentences()


def test_messages_become_exchanges():
    turns = turns_of(
        said(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    )
    found, told = conversation(*turns)
    assert found.system == "S"
    assert found.exchanges == (Exchange("a", "b"), Exchange("c", "d"))
    assert told == []


@pytest.mark.parametrize(
    "value",
    [
        said(("Human", "a"), ("Assistant", "b")),
        said((" USER ", "a"), ("model", "b")),
        [{"Role": "prompter", "Content": "a"}, {"role": "bot", "content": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        [{"role": "user", "value": "a"}, {"speaker": "chatgpt", "text": "b"}],
        [{"input": "a", "output": "b"}],
        [["a", "b"]],
        [{"role": "user", "parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "b"}]}],
        json.dumps(said(("user", "a"), ("assistant", "b"))),
        [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": ["b"]},
        ],
    ],
)
def test_every_form_of_a_list_of_messages_is_the_same_conversation(value):
    assert turns_of(value) == [Turn("user", "a"), Turn("assistant", "b")]


def test_plain_texts_take_turns_where_they_may_stand_for_messages():
    assert turns_of(["a", "b"], may_be_texts=True) == [Turn("user", "a"), Turn("assistant", "b")]
    with pytest.raises(DataError, match="message 1 must be an object with role and content, got 'a'"):
        turns_of(["a", "b"])


def test_the_parts_of_a_text_are_lines_of_it():
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert turns_of([{"role": "user", "content": parts}]) == [Turn("user", "a\nb")]


def test_tool_calls_are_answers_and_their_results_are_requests_in_tags():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}
    value = [
        *said(("user", "2 plus 3?")),
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
        *said(("assistant", "It is 5.")),
    ]
    written = '<tool_call>\n{"name": "add", "arguments": {"x": 2}}\n</tool_call>'
    result = "<tool_response>\n5\n</tool_response>"
    found, told = conversation(*turns_of(value))
    assert found.exchanges == (  # as the template of Qwen 2.5 writes them between its marks
        Exchange("2 plus 3?", f"{written}\n{written}"),
        Exchange(f"{result}\n{result}", "It is 5."),
    )
    assert told == ["In 1 row tool calls and their results are converted to text in tags (here)."]
    llama = {"name": "add", "parameters": {"x": 2}, "id": "c1"}
    [_, turn] = turns_of([{"role": "assistant", "content": "", "tool_calls": [llama]}])
    assert turn.text == '<tool_call>\n{"name": "add", "parameters": {"x": 2}}\n</tool_call>'
    sharegpt = [("human", "2 plus 3?"), ("function_call", "{}"), ("observation", result), ("gpt", "It is 5.")]
    turns = turns_of([{"from": role, "value": text} for role, text in sharegpt])
    assert [turn.text for turn in turns[1:3]] == ["<tool_call>\n{}\n</tool_call>", result]


@pytest.mark.parametrize(
    ("turns", "exchanges", "told"),
    [
        ([("assistant", "hi"), ("user", "a"), ("assistant", "b")], [("a", "b")], "the assistant's message before"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], [("a", "b")], "the last request has no answer"),
        ([("user", "a"), ("user", "b"), ("assistant", "c")], [("a\n\nb", "c")], "consecutive messages"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], [("a", "b\n\nc")], "consecutive messages"),
        (
            [("user", "a"), ("assistant", "b"), ("system", "s"), ("user", "c"), ("assistant", "d")],
            [("a", "b"), ("s\n\nc", "d")], "a system message between other messages",
        ),
    ],
)  # fmt: skip
def test_turns_out_of_order_are_joined_or_left_out_and_counted(turns, exchanges, told):
    found, [sentence] = conversation(*turns)
    assert found.exchanges == tuple(exchanges)
    assert sentence.startswith(f"In 1 row {told}")


@given(st.lists(st.sampled_from(["system", "user", "assistant", "call", "tool"]), max_size=7))
def test_every_text_is_in_an_exchange_or_said_to_be_left_out(roles):
    texts = [f"<{number}>" for number in range(len(roles))]
    found, told = conversation(*zip(roles, texts))
    kept = (
        "" if found is None else "".join([found.system, *(text for pair in found.exchanges for text in pair)])
    )
    lost = [text for text in texts if text not in kept]
    assert [text for text in texts if text in kept] == re.findall("<[0-9]>", kept)  # each once, in its order
    assert bool(lost) <= any("left out" in sentence for sentence in told)


@pytest.mark.parametrize(
    "turns",
    [[], [("user", "a")], [("system", "s")], [("assistant", "b")], [("user", " "), ("assistant", "b")]],
)
def test_a_conversation_without_a_request_that_is_answered_is_left_out(turns):
    found, told = conversation(*turns)
    assert found is None
    assert told[-1].startswith("In 1 row no request has")
    assert told[-1].endswith(": the row is left out (here).")


def test_system_prompts_of_field_and_messages_are_both_kept():
    turns = [("system", "T"), ("user", "a"), ("assistant", "b")]
    found, told = conversation(*turns, system="S")
    assert (found.system, told) == ("S\n\nT", ["In 1 row several system prompts are joined (here)."])
    assert conversation(*turns, system="T") == conversation(*turns)
    assert conversation(("system", ""), *turns[1:])[0].system == ""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (said(("user", "a"), ("asistant", "b")), "message 2 must have a known role, got 'asistant'; did you mean"),
        (said(("user", "a"), (7, "b")), "message 2 must have a known role, got 7"),
        (said(("user", 5)), "message 1, content must be text, got 5"),
        ("a", "must be a list of messages, in a table as JSON, got 'a'"),
        ("[{", "must be a list of messages, in a table as JSON, got '"),
        ([{"role": "user"}], "message 1 must be an object with role and content, got {'role'"),
        (["a"], "message 1 must be an object with role and content, got 'a'"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]}],
            "message 1, content, part 2 must be text, since these models read nothing else, got 'image_url'",
        ),
        ([{"role": "user", "content": [3]}], "message 1, content, part 1 must be text, .*, got 'int'"),
        (said(("user", "b\udfff")), "message 1, content is not valid Unicode: a lone surrogate"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(value, message):
    with pytest.raises(DataError, match=message) as caught:
        turns_of(value)
    assert "f.json entry 3" in str(caught.value)


def test_fields_of_messages_that_are_not_read_are_named():
    notes = RowNotes()
    read_turns([{"from": "human", "value": "a", "weight": 1, "name": None}], where="here", notes=notes)
    assert notes.sentences() == ["Fields not used: weight of messages."]
    notes = RowNotes()
    read_turns([{"role": "assistant", "content": "a", "weight": 0}], where="here", notes=notes)
    assert notes.sentences() == ["Fields not used: weight of messages."]


def test_files_may_mix_single_entries_and_conversations(tmp_path):
    values = [
        {"instruction": "a", "output": "b", "system": "S", "messages": "another column"},
        {"messages": said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))},
    ]
    expected = [
        Instruction(instruction="a", input="", output="b", system="S"),
        Instruction(instruction="c", input="", output="d", history=(Exchange("a", "b"),)),
    ]
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, values)))
    assert read_instructions(tmp_path / "a.json") == expected
    assert read_instructions(tmp_path / "a.jsonl") == expected
