"""Reading OpenAI's two files, and files that are damaged."""

import json

import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.byte_symbols import to_symbols
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer


@pytest.fixture
def files(tmp_path, tiny_corpus):
    """A small tokenizer in OpenAI's format: encoder.json, vocab.bpe, and the tokenizer itself."""
    tokenizer = train_bpe([tiny_corpus], 300)
    vocab = {to_symbols(token): id_ for token, id_ in tokenizer.vocab.items()} | tokenizer.special_tokens
    lines = [f"{to_symbols(left)} {to_symbols(right)}" for left, right in tokenizer.merges]
    encoder_json, vocab_bpe = tmp_path / "encoder.json", tmp_path / "vocab.bpe"
    encoder_json.write_text(json.dumps(vocab), encoding="utf-8")
    vocab_bpe.write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    return encoder_json, vocab_bpe, tokenizer


@pytest.mark.parametrize("engine", ["python", "tiktoken"])
def test_openai_files_give_the_tokenizer_back(files, engine, tiny_corpus):
    encoder_json, vocab_bpe, tokenizer = files
    loaded = load_gpt2_tokenizer(encoder_json, vocab_bpe, engine=engine)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(tiny_corpus) == tokenizer.encode(tiny_corpus)


def test_windows_line_ends_do_no_harm(files):
    encoder_json, vocab_bpe, tokenizer = files
    vocab_bpe.write_bytes(vocab_bpe.read_bytes().replace(b"\n", b"\r\n"))
    assert load_gpt2_tokenizer(encoder_json, vocab_bpe).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nW e\n", "\nW\n", r"vocab\.bpe, line \d+, must hold two tokens separated by one space"),
        ("\nW e\n", "\nW e x\n", r"line \d+, must hold two tokens"),
        ("\nW e\n", "\n\u4e00 e\n", r"line \d+, must spell tokens .* got '一'"),
        ("\nW e\n", "\n", "do not belong together: 42 merges .* has 299"),
        ("\nW e\n", "\nQ Q\n", "the vocabulary has no token b'QQ'"),
    ],
)
def test_a_damaged_merge_is_named_with_its_place(files, old, new, message):
    encoder_json, vocab_bpe, _ = files
    text = vocab_bpe.read_text(encoding="utf-8")
    assert old in text
    vocab_bpe.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        load_gpt2_tokenizer(encoder_json, vocab_bpe)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"a": 64', '"a": 64, "a": 64', "has the key .* twice"),
        ('"a": 64', '"a": 65', "65 belongs to both b'a' and b'b'"),
        ('"a": 64', '"a": "64"', "got '64' for b'a'"),
        ('"a": 64', '"\u4e00": 64', "got '一' at character 0"),
        ('"a": 64', '"a" 64', r"at line 1, column \d+"),
        ('"a": 64, ', "", "do not belong together"),
    ],
)
def test_a_damaged_vocabulary_is_named_with_its_place(files, old, new, message):
    encoder_json, vocab_bpe, _ = files
    text = encoder_json.read_text(encoding="utf-8")
    assert old in text
    encoder_json.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(TokenizerError, match=message) as caught:
        load_gpt2_tokenizer(encoder_json, vocab_bpe)
    assert "encoder.json" in str(caught.value)


def test_a_vocabulary_that_is_a_list_is_an_error(files):
    encoder_json, vocab_bpe, _ = files
    encoder_json.write_text("[]", encoding="utf-8")
    with pytest.raises(TokenizerError, match="got a list"):
        load_gpt2_tokenizer(encoder_json, vocab_bpe)


def test_a_file_cut_anywhere_is_an_error(files):
    encoder_json, vocab_bpe, _ = files
    whole = vocab_bpe.read_bytes()
    for size in range(0, len(whole) - 1, 7):
        vocab_bpe.write_bytes(whole[:size])
        with pytest.raises(TokenizerError):
            load_gpt2_tokenizer(encoder_json, vocab_bpe)
