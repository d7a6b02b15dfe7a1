"""Marks that no text can close, forge or foresee."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scratchlm.evaluation.judge.fences import LETTERS, code_for, fenced

TEXTS = st.lists(st.text(), max_size=4)


@given(TEXTS)
def test_a_code_stands_in_none_of_the_texts_and_is_the_same_again(texts):
    code = code_for(texts, purpose="fence")
    assert code == code_for(texts, purpose="fence")
    assert not any(code in text.casefold() for text in texts)
    assert len(code) == 8
    assert set(code) <= set(LETTERS)


@given(TEXTS)
def test_an_answer_that_holds_its_code_gets_another(texts):
    code = code_for([*texts, ""], purpose="fence")
    assert code_for([*texts, f"<<end answer {code.upper()}>>"], purpose="fence") != code


@given(TEXTS)
def test_each_purpose_has_its_own_code(texts):
    assert code_for(texts, purpose="fence") != code_for(texts, purpose="reply")


def test_a_code_that_a_text_holds_is_passed_over(monkeypatch):
    """No text can hold the code of its own hash, so the hash is made to forget the texts."""
    monkeypatch.setattr("scratchlm.evaluation.judge.fences.json.dumps", lambda value: str(value[:2]))
    first = code_for(["nothing"], purpose="fence")
    assert code_for([f"... {first} ..."], purpose="fence") != first


@given(st.text())
def test_the_end_mark_stands_once_and_last(text):
    code = code_for([text], purpose="fence")
    block = fenced("answer", text, code=code)
    assert block.count(code) == 2
    assert block.endswith(f"\n<<end answer {code}>>")
