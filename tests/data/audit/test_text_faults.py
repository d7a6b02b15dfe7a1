from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.data.audit.text_faults import N_EXAMPLES, TextFaults, repaired_mojibake


def found(text: str) -> dict[str, int]:
    faults = TextFaults()
    faults.add(text, "here")
    return {row["name"]: row["n"] for row in faults.figures()["faults"]}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("caf\ufffd", {"replacement": 1}),
        ("cafÃ© and donâ€™t", {"mojibake": 2}),
        ("don\x92t \x93quoted\x94", {"c1_control": 3}),
        ("a\x00b\x1b[31m", {"control": 2}),
        ("line\r\n", {"carriage_return": 1}),
        ("zero\u200bwidth soft\u00adhyphen", {"zero_width": 2}),
        ("\u202eturned", {"bidirectional": 1}),
        ("1\u00a0000", {"unusual_space": 1}),
        ("\ue000 and \ud800", {"private_use": 2}),
        ("AT&amp;T &#39;", {"html_entity": 2}),
    ],
)
def test_each_kind_of_fault_is_found(text, kinds):
    assert found(text) == kinds


@pytest.mark.parametrize(
    "text",
    [
        "Plain English, 100%: \"yes\" & 'no'\n\ttabs\n",
        "« voilà\u202f», « ÉTÉ», naïve, Ärger, Übermut, Århus".replace("\u202f", ""),
        "Ελληνικά, Русский, 日本語, العربية, 👩\u200d👧",
        "£5 — “quoted” … ½",
    ],
)
def test_good_text_of_many_languages_is_left_alone(text):
    assert found(text) == {}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@given(st.text(st.sampled_from("éüñç’“”€–…"), min_size=1, max_size=5))
def test_what_a_wrong_decoding_did_is_found_and_undone(encoding, text):
    try:
        broken = text.encode().decode(encoding)
    except UnicodeDecodeError:  # Windows-1252 has five holes
        return
    assert repaired_mojibake(broken) == text
    faults = TextFaults()
    faults.add(f"a {broken} b", "here")
    (row,) = faults.figures()["faults"]
    assert (row["name"], row["examples"][0]["note"]) == ("mojibake", f"should be {text!r}")


def test_a_place_is_shown_with_its_surroundings():
    faults = TextFaults()
    faults.add("they don\x92t know", "a.txt line 3")
    (row,) = faults.figures()["faults"]
    assert row["examples"] == [
        {
            "where": "a.txt line 3",
            "before": "they don",
            "found": "\x92",
            "after": "t know",
            "note": "U+0092 in Windows-1252 ’",
        }
    ]


def test_rows_and_places_are_counted_apart_and_examples_are_few():
    faults = TextFaults()
    for number in range(10):
        faults.add("&amp; and &amp;", f"line {number}")
    (row,) = faults.figures()["faults"]
    assert (row["n"], row["rows"], len(row["examples"])) == (20, 10, N_EXAMPLES)


def test_special_tokens_are_found_the_longest_first_and_a_tokenizers_own_too():
    faults = TextFaults(special=["@end@"])
    faults.add("<|endoftext|> [INST] hi [/INST]<|im_start|>user @end@ <b> a<|b", "here")
    named = {row["token"]: row["n"] for row in faults.figures()["special_tokens"]}
    assert named == {"<|endoftext|>": 1, "[INST]": 1, "[/INST]": 1, "<|im_start|>": 1, "@end@": 1}


@given(st.text())
def test_any_text_can_be_looked_through(text):
    faults = TextFaults()
    faults.add(text, "here")
    for row in faults.figures()["faults"]:
        assert row["n"] >= row["rows"] == 1
        assert row["examples"][0]["found"] in text
