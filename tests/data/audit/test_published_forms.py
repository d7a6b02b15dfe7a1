"""Small files in the exact form in which known data sets are published, through the readers that training uses."""

import io
import json
import tarfile

import pytest

from scratchlm.data.audit import inspect_data
from scratchlm.data.instruction_rows import read_instructions
from scratchlm.data.sources import read_documents

ALPACA = """[
    {
        "instruction": "Give three tips for staying healthy.",
        "input": "",
        "output": "1.Eat a balanced diet. \\n2. Exercise regularly."
    },
    {
        "instruction": "Identify the odd one out.",
        "input": "Twitter, Instagram, Telegram",
        "output": "Telegram"
    }
]"""
DOLLY = (
    '{"instruction": "When did Virgin Australia start operating?", "context": "Virgin Australia is an airline.", '
    '"response": "It commenced services on 31 August 2000.", "category": "closed_qa"}\n'
    '{"instruction": "Which is a species of fish? Tope or Rope", "context": "", "response": "Tope", '
    '"category": "classification"}\n'
)
WIKITEXT = " \n = Robert Boulter = \n \n Robert Boulter is an English film actor . \n \n = = Career = = \n \n"


def test_alpaca_is_read_as_it_is(tmp_path):
    path = tmp_path / "alpaca_data.json"
    path.write_text(ALPACA)
    entries = read_instructions(path)
    assert [entry.input for entry in entries] == ["", "Twitter, Instagram, Telegram"]
    figures = inspect_data([path])
    assert (figures["kind"], figures["rows"], figures["splits"][0]["refused"]) == ("instruction", 2, None)


def test_dollys_context_is_the_input_and_its_response_the_output(tmp_path):
    path = tmp_path / "databricks-dolly-15k.jsonl"
    path.write_text(DOLLY)
    entries = read_instructions(path)
    assert entries[0].input == "Virgin Australia is an airline."
    assert [entry.output for entry in entries] == ["It commenced services on 31 August 2000.", "Tope"]
    figures = inspect_data([path])
    assert (figures["kind"], figures["rows"], figures["splits"][0]["refused"]) == ("instruction", 2, None)


def test_ag_news_and_imdb_are_seen_for_what_they_are(tmp_path):
    news = tmp_path / "train.csv"
    news.write_text('"3","Bears","Short-sellers"\n"4","Comets","A disc"\n"9","no","topic"\n')
    figures = inspect_data([news])
    assert {row["label"]: row["n"] for row in figures["classes"]} == {"Business": 1, "Sci/Tech": 1}
    assert figures["unusable"]["n"] == 1
    assert "line 3 must be a topic from 1 to 4" in figures["splits"][0]["refused"]
    reviews = tmp_path / "aclImdb_v1.tar.gz"
    with tarfile.open(reviews, "w:gz") as archive:
        for name in ("aclImdb/test/pos/0_10.txt", "aclImdb/train/neg/0_3.txt"):
            member = tarfile.TarInfo(name)
            member.size = 5
            archive.addfile(member, io.BytesIO(b"films"))
    figures = inspect_data([reviews])
    assert {row["label"]: row["n"] for row in figures["classes"]} == {"pos": 1, "neg": 1}
    assert figures["near_duplicates"]["conflicts"] == 1
    assert figures["splits"][0]["refused"] is None


def test_wikitext_is_plain_text_with_its_headings(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(WIKITEXT)
    (document,) = read_documents(path)
    assert document.text == WIKITEXT
    figures = inspect_data([path])
    assert (figures["kind"], figures["rows"]) == ("text", 3)


def test_fineweb_is_parquet_with_text_beside_other_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "sample-10BT-014.parquet"
    columns = {
        "text": ["A page about cats.", "How to Dry Clothes"],
        "id": ["<urn:uuid:1>", "<urn:uuid:2>"],
        "dump": ["CC-MAIN-2013-20"] * 2,
        "url": ["http://example.org/a", "http://example.org/b"],
        "language_score": [0.97, 0.95],
        "token_count": [5, 5],
    }
    parquet.write_table(pyarrow.table(columns), path)
    assert [document.text for document in read_documents(path)] == columns["text"]
    assert inspect_data([path])["rows"] == 2


def test_tiny_stories_come_apart_at_their_separator_and_without_it_are_told(tmp_path):
    path = tmp_path / "valid.txt"
    path.write_text("u don't have to be scared.\n<|endoftext|>\nOnce upon a time.\n<|endoftext|>\n")
    stories = ["u don't have to be scared.", "Once upon a time."]
    assert [d.text for d in read_documents(path, document_separator="<|endoftext|>")] == stories
    figures = inspect_data([path], document_separator="<|endoftext|>")
    assert (figures["rows"], figures["unit"], figures["special_tokens"]) == (2, "documents", [])
    assert figures["splits"][0]["stream"]["documents"] == 2
    figures = inspect_data([path])
    assert "--document-separator" in json.dumps(figures["findings"])
    assert figures["special_tokens"][0]["token"] == "<|endoftext|>"
    assert figures["special_tokens"][0]["n"] == 2
    assert json.dumps(figures["findings"]).count("<|endoftext|> 2 times") == 1
