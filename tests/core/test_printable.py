"""What a terminal, a page and a table program never get to see."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchlm.core.printable import csv_cell, printable, printable_json

HOSTILE = [
    chr(code) for code in (*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F))
]


@pytest.mark.parametrize("character", [*HOSTILE, "\u2066", "\u2069", "\r", "\ud800"])
def test_every_character_that_steers_a_terminal_becomes_one_visible_character(character):
    clean = printable(f"a{character}b")
    assert len(clean) == 3
    assert clean[0] + clean[2] == "ab"
    assert clean[1].isprintable()


@pytest.mark.parametrize("text", ["a\tb\nc", "a\r\nb", "Grüße, 世界 🙂 שלום", "", "\u200fשלום\u200e"])
def test_text_of_every_language_stays_as_it_is(text):
    assert printable(text) == text


@given(st.text())
def test_printable_text_is_printable_again(text):
    assert printable(printable(text)) == printable(text)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_json_stays_json_and_loses_nothing(text):
    line = printable_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(line) == {"text": text}
    assert printable(line) == line


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_a_cell_that_begins_a_formula_is_text_to_a_table_program(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0").startswith("'")


@pytest.mark.parametrize("value", ["a=b", "", "it's", -2.5, 7, None, True])
def test_other_cells_stay_as_they_are(value):
    assert csv_cell(value) is value


def test_a_csv_reader_gets_the_escaped_text_back():
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell('=HYPERLINK("x", "y")'), csv_cell("plain")])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == ['\'=HYPERLINK("x", "y")', "plain"]
