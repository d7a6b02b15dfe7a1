from __future__ import annotations

from scratchlm.data.audit.text_stream import stream_figures
from scratchlm.data.rows import RowSettings


def test_the_verdict_has_the_books_number_of_tokens(real_data):
    from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer

    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    told = stream_figures(real_data / "text" / "the-verdict.txt", tokenizer, RowSettings())
    assert told["refused"] is None
    assert (told["stream"]["tokens"], told["stream"]["characters"]) == (5145, 20479)  # the book, chapter 2


def test_documents_bytes_and_characters_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "né"}\n{"text": "two"}\n')
    told = stream_figures(tmp_path, None, RowSettings())["stream"]
    assert (told["documents"], told["characters"], told["bytes"], told["tokens"]) == (2, 5, 6, None)


def test_what_pretraining_says_against_a_file_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    told = stream_figures(tmp_path / "a.txt", None, RowSettings())
    assert told["stream"] is None
    assert "must be UTF-8 text, found byte 0xe9 at byte offset 3" in told["refused"]
