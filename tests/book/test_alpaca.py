"""The book's entries as text and ids, with our tokenizers and with a plain encoding of tiktoken's."""

import pytest

from scratchlm.book import ch06, ch07
from scratchlm.book.alpaca import as_instruction, encode_plain, format_input
from scratchlm.core.errors import DataError

tiktoken = pytest.importorskip("tiktoken")

ENTRY = {"instruction": "Say <|endoftext|>.", "input": "", "output": "<|endoftext|>"}


@pytest.fixture(scope="module")
def encoding():
    """A small encoding of tiktoken's own class: bytes, and one special token."""
    ranks = {bytes([i]): i for i in range(256)}
    return tiktoken.Encoding(
        "tiny", pat_str=r"\w+|\W", mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 256}
    )


def test_a_special_tokens_text_is_text_for_an_encoding_of_tiktoken(encoding):
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode("<|endoftext|>")
    assert encode_plain(encoding, "<|endoftext|>") == list(b"<|endoftext|>")


def test_our_tokenizers_read_it_as_text_anyway(tiny_tokenizer):
    assert tiny_tokenizer.decode(encode_plain(tiny_tokenizer, "<|endoftext|>")) == "<|endoftext|>"


def test_the_books_data_sets_take_an_encoding_of_tiktoken(encoding, tmp_path):
    (ids,) = ch07.InstructionDataset([ENTRY], encoding)
    assert bytes(ids).decode() == f"{format_input(ENTRY)}\n\n### Response:\n<|endoftext|>"
    (pair,) = ch07.PreferenceDataset([ENTRY | {"chosen": "yes", "rejected": "<|endoftext|>"}], encoding)
    assert bytes(pair["rejected"]).decode().endswith("<|endoftext|>")
    (tmp_path / "a.csv").write_text("Label,Text\n1,win <|endoftext|> now\n")
    inputs, label = ch06.SpamDataset(tmp_path / "a.csv", encoding)[0]
    assert (bytes(inputs.tolist()).decode(), int(label)) == ("win <|endoftext|> now", 1)


def test_an_entry_without_an_instruction_is_an_error():
    with pytest.raises(DataError, match="no instruction; its keys are: input"):
        as_instruction({"input": "a"})


def test_a_missing_input_may_be_null_and_a_number_is_its_digits():
    entry = {"instruction": "Double it.", "input": 4, "output": 8}
    assert format_input(entry).endswith("Double it.\n\n### Input:\n4")
    assert as_instruction(entry).output == "8"
    assert as_instruction({"instruction": "Double it.", "input": None}).input == ""


@pytest.mark.parametrize(
    "changed", [{"instruction": None}, {"input": ["a"]}, {"output": None}, {"output": True}]
)
def test_what_is_no_text_is_an_error_that_names_it(changed):
    entry = {"instruction": "Say a.", "input": "", "output": "a"} | changed
    with pytest.raises(DataError, match=f"entry's {next(iter(changed))} must be text, got"):
        as_instruction(entry)
