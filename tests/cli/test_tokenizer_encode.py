"""`tokenizer encode` and `decode`: every place that holds a tokenizer, and tokens that were added."""

import pytest

from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers.files import load_tokenizer
from tests.tokenizers.test_families import qwen3
from tests.tokenizers.test_vocab_and_merges import qwen

TEXT = "Don't <think> 12 <|im_start|>"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """One tokenizer as a tokenizer.json, in the older form, and in a GGUF file."""
    folder = tmp_path_factory.mktemp("places")
    qwen3().save(str(folder / "tokenizer.json"))
    (folder / "older").mkdir()
    tokenizer = load_tokenizer(folder)
    sizes = {
        "vocab_size": tokenizer.vocab_size,
        "context_length": 8,
        "emb_dim": 16,
        "n_heads": 2,
        "n_layers": 1,
    }
    gguf = export_gguf(folder / "a.gguf", GPTModel(GPTConfig(**sizes, drop_rate=0.0)), tokenizer)
    return {
        "file": str(folder / "tokenizer.json"),
        "folder": str(folder),
        "older": str(qwen(folder / "older")),
        "gguf": str(gguf),
    }


@pytest.mark.parametrize("place", ["file", "folder", "older", "gguf"])
def test_a_text_is_encoded_and_decoded_with_the_tokenizer_of_any_place(places, place, run_json, run):
    value = run_json("tokenizer encode", TEXT, "--tokenizer", places[place])
    expected = load_tokenizer(places["file"]).encode(TEXT)
    assert value["ids"] == expected
    assert "<think>" in value["tokens"]
    assert "<|im_start|>" not in value["tokens"]  # a special token counts only with --allow-special
    allowed = run_json("tokenizer encode", TEXT, "--tokenizer", places[place], "--allow-special")
    assert "<|im_start|>" in allowed["tokens"]
    code, out, _ = run("tokenizer decode", *map(str, allowed["ids"]), "--tokenizer", places[place])
    assert (code, out) == (0, f"{TEXT}\n")
    (row,) = run_json("tokenizer compare", TEXT, "--tokenizers", places[place])["tokenizers"]
    assert row["round_trip"] is True
