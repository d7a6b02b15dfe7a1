"""The older form of a tokenizer, vocab.json with merges.txt, beside the same one as tokenizer.json and transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from scratchlm.core.errors import TokenizerError
from scratchlm.tokenizers.files import load_tokenizer
from tests.tokenizers.odd_strings import odd_strings
from tests.tokenizers.test_families import gpt2, qwen3

FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def write_older_form(folder: Path, theirs: Tokenizer, **files: dict[str, Any]) -> Path:
    """vocab.json without the added tokens, merges.txt, added_tokens.json, and further files."""
    model = json.loads(theirs.to_str())["model"]
    added = {token.content: id_ for id_, token in theirs.get_added_tokens_decoder().items()}
    beyond = {content: id_ for content, id_ in added.items() if content not in model["vocab"]}
    files = {"vocab": model["vocab"], "added_tokens": beyond} | files
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def listed(theirs: Tokenizer) -> dict[str, Any]:
    """The added tokens as tokenizer_config.json lists them."""
    added = sorted(theirs.get_added_tokens_decoder().items())
    return {str(id_): {name: getattr(token, name) for name in FIELDS} for id_, token in added}


def plain_gpt2(folder: Path) -> Path:
    theirs = gpt2()
    theirs.add_tokens(["<sep>", "covid19"])
    return write_older_form(folder, theirs, config={"model_type": "gpt2"})


def gpt2_with_settings(folder: Path) -> Path:
    theirs = gpt2()
    theirs.add_special_tokens(["<pad>", AddedToken("<mask>", lstrip=True)])
    settings = {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "pad_token": "<pad>"}
    return write_older_form(
        folder, theirs, tokenizer_config=settings | {"added_tokens_decoder": listed(theirs)}
    )


def qwen(folder: Path) -> Path:
    theirs = qwen3()
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_start|>"}
    return write_older_form(
        folder, theirs, tokenizer_config=settings | {"added_tokens_decoder": listed(theirs)}
    )


@pytest.mark.parametrize("make", [plain_gpt2, gpt2_with_settings, qwen])
def test_ids_equal_those_of_transformers(make, tmp_path):
    folder = make(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    for text in odd_strings(1000, also=list(theirs.get_added_vocab())):
        ids = ours.encode(text, allowed_special="all")
        assert ids == theirs(text, add_special_tokens=False).input_ids, repr(text)
    special = {id_ for id_, token in theirs.added_tokens_decoder.items() if token.special}
    assert set(ours.special_tokens.values()) == special


def test_both_forms_of_a_tokenizer_are_the_same(tmp_path):
    theirs = qwen3()
    theirs.save(str(tmp_path / "tokenizer.json"))
    whole = load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    older = load_tokenizer(qwen(tmp_path))
    assert [token.content for token in older.added_tokens] == [token.content for token in whole.added_tokens]
    for text in odd_strings(100, also=list(theirs.get_vocab())):
        assert older.encode(text) == whole.encode(text)


def test_a_version_line_is_not_needed(tmp_path):
    folder = plain_gpt2(tmp_path)
    before = load_tokenizer(folder).fingerprint
    merges = (folder / "merges.txt").read_text(encoding="utf-8")
    (folder / "merges.txt").write_text(merges.partition("\n")[2], encoding="utf-8")
    assert load_tokenizer(folder).fingerprint == before


def test_a_begin_of_text_is_read_from_the_settings(tmp_path):
    write_older_form(
        tmp_path, gpt2(), tokenizer_config={"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}
    )
    assert load_tokenizer(tmp_path).begin_of_text_id == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tokenizer_config.json", '{"tokenizer_class": "T5Tokenizer"}', "tokenizer_class 'T5Tokenizer'"),
        ("config.json", '{"model_type": "llama"}', "model_type 'llama'"),
        ("config.json", '{"model_type": ["gpt2"]}', r"model_type \['gpt2'\]"),
        ("config.json", "[]", "must hold a JSON object"),
        ("added_tokens.json", '{"<a>": "x"}', "'id' must be of type int"),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"x": {"content": "a"}}}',
            "must map ids to tokens, got 'x'",
        ),
        (
            "tokenizer_config.json",
            '{"added_tokens_decoder": {"500": {"content": 3}}}',
            "'content' must be of type str",
        ),
        ("merges.txt", "#version: 0.2\n", "one of the files is truncated"),
        ("merges.txt", "#version: 0.2\na b c\n", r"merges\.txt, line 2"),
        ("vocab.json", "{}", "one of the files is truncated"),
    ],
)
def test_what_is_damaged_or_not_known_is_named(name, value, message, tmp_path):
    folder = plain_gpt2(tmp_path)
    (folder / name).write_text(value, encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(folder)
