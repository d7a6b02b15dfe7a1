"""A tokenizer written into a GGUF file comes back, with the name that llama.cpp gives its family."""

import dataclasses

import pytest

from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.tokenizers.added_tokens import AddedToken
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.families import CL100K, LLAMA3, QWEN2, SMOLLM
from tests.checkpoints.gguf.test_writer import make_model

BEGIN = "<|begin_of_text|>"
VARIANTS = {
    "smollm": SMOLLM,
    "llama-bpe": dataclasses.replace(LLAMA3, begin_of_text=BEGIN),
    "dbrx": CL100K,
    "qwen2": QWEN2,
    "qwen2 ": dataclasses.replace(QWEN2, normalizers=()),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_each_family_s_tokenizer_comes_back_and_is_named_as_llama_cpp_does(tmp_path, name):
    special = [BEGIN, "<|end_of_text|>"]
    merges = train_bpe(["The cat sat on the mat. They've 123 bones! " * 40], 280).merges
    family = BPETokenizer(merges, special_tokens=special, variant=VARIANTS[name])
    path = export_gguf(tmp_path / "a.gguf", make_model("llama"), family)
    assert GGUFFile(path).metadata["tokenizer.ggml.pre"] == name.strip()
    assert GGUFFile(path).metadata["tokenizer.ggml.add_bos_token"] == (name == "llama-bpe")
    assert read_gguf(path).tokenizer.fingerprint == family.fingerprint


def test_added_words_missing_bytes_and_holes_come_back(tmp_path):
    vocab = {bytes([byte]): byte for byte in range(256) if byte != 4}
    added = [AddedToken(content="<think>", id=258), AddedToken(content="<|endoftext|>", id=256, special=True)]
    original = BPETokenizer([], vocab=vocab, added_tokens=added, variant=SMOLLM)
    again = read_gguf(export_gguf(tmp_path / "a.gguf", make_model("llama"), original)).tokenizer
    assert again.fingerprint == original.fingerprint
    assert again.unused_ids == [4, 257]


def test_a_byte_or_merged_token_that_is_also_an_added_one_stays_in_the_text(tmp_path):
    """`!` is the padding of CLIP and of many fine-tuned models; its id is that of the byte."""
    added = [
        AddedToken(content="!", id=0, special=True),
        AddedToken(content="ab", id=256, special=True),
        AddedToken(content="<|endoftext|>", id=257, special=True),
    ]
    original = BPETokenizer([(b"a", b"b")], added_tokens=added)
    again = read_gguf(export_gguf(tmp_path / "a.gguf", make_model("llama"), original)).tokenizer
    assert again.fingerprint == original.fingerprint
    assert again.encode("!ab!") == [0, 256, 0]
