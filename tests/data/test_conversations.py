from __future__ import annotations

import json

import pytest

from scratchlm.core.errors import DataError
from scratchlm.data.conversations import Exchange, read_conversation
from scratchlm.data.instructions import Instruction, read_instructions


def said(*turns: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_messages_become_exchanges():
    found = read_conversation(
        said(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")), where="x"
    )
    assert found.system == "S"
    assert found.exchanges == (Exchange("a", "b"), Exchange("c", "d"))


def test_the_form_of_sharegpt_is_the_same_conversation():
    ours = read_conversation(said(("system", "S"), ("user", "a"), ("assistant", "b")), where="x")
    value = [("system", "S"), ("human", "a"), ("gpt", "b")]
    theirs = {"conversations": [{"from": role, "value": text} for role, text in value]}
    assert read_conversation(theirs, where="x") == ours


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (said(("user", "a"), ("asistant", "b")), "message 2 must have a known role, found 'asistant'; did you mean"),
        (said(("assistant", "a"), ("user", "b")), "message 1 must be the user's, found the assistant's; user and"),
        (said(("user", "a"), ("user", "b")), "message 2 must be the assistant's, found the user's"),
        (said(("system", "s"), ("user", "a"), ("system", "s")), "message 3 must be the assistant's, found the system"),
        (said(("user", "a")), "must end with the assistant's answer, found 1 messages"),
        (said(("system", "a")), "must end with the assistant's answer, found 0 messages"),
        (said(("user", " "), ("assistant", "b")), "message 1 must have text under 'content', found ' '"),
        (said(("user", "a"), ("assistant", None)), "message 2 must have text under 'content', found None"),
        ({"messages": []}, "must have a list of messages under 'messages', found"),
        ({"conversations": "a"}, "must have a list of messages under 'conversations', found 'a'"),
        ({"messages": [{"from": "human", "value": "a"}]}, "message 1 must be an object with role and content"),
        ({"messages": ["a"]}, "message 1 must be an object with role and content, found 'a'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(value, message):
    with pytest.raises(DataError, match=message) as caught:
        read_conversation(value, where="f.json entry 3")
    assert "f.json entry 3" in str(caught.value)


def test_files_may_mix_single_entries_and_conversations(tmp_path):
    values = [
        {"instruction": "a", "output": "b", "system": "S", "messages": "another column"},
        said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    ]
    expected = [
        Instruction(instruction="a", input="", output="b", system="S"),
        Instruction(instruction="c", input="", output="d", history=(Exchange("a", "b"),)),
    ]
    (tmp_path / "a.json").write_text(json.dumps(values))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, values)))
    assert read_instructions(tmp_path / "a.json") == expected
    assert read_instructions(tmp_path / "a.jsonl") == expected
    (tmp_path / "b.jsonl").write_text(json.dumps(values[0]) + "\n" + json.dumps(said(("user", "a"))))
    with pytest.raises(DataError, match=r"b.jsonl line 2 must end with the assistant's answer"):
        read_instructions(tmp_path / "b.jsonl")


def test_half_a_surrogate_pair_is_named_with_its_message():
    with pytest.raises(
        DataError, match="here, message 2, content, must be Unicode text, found a lone surrogate"
    ):
        read_conversation(said(("user", "a"), ("assistant", "b\udfff")), where="here")
