"""Saving and loading tokenizers, and files that are not what they should be."""

import copy
import json
import subprocess
import sys

import pytest

from scratchlm.core.errors import TokenizerError
from scratchlm.core.protocols import Tokenizer
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import LosslessWordTokenizer, StrictWordTokenizer, WordTokenizer, build_vocab

TEXT = "The cat sat: on the mat; 12 cats -- sat.\nWasn't it odd? "
SPECIAL = (END_OF_TEXT, UNKNOWN)


def make_all() -> list:
    vocab = build_vocab(TEXT, special_tokens=SPECIAL)
    return [
        train_bpe([TEXT * 3], 300, special_tokens=SPECIAL),
        BPETokenizer([(b"a", b"t")], special_tokens=SPECIAL, pattern=r"\w+|\W"),
        StrictWordTokenizer(vocab),
        WordTokenizer(vocab),
        LosslessWordTokenizer.from_text(TEXT, special_tokens=SPECIAL),
    ]


@pytest.mark.parametrize("tokenizer", make_all(), ids=["bpe", "bpe-pattern", "strict", "word", "lossless"])
def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.special_tokens == tokenizer.special_tokens
    text = f"{TEXT}{END_OF_TEXT} {TEXT}"
    assert loaded.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")


@pytest.mark.parametrize("tokenizer", make_all(), ids=["bpe", "bpe-pattern", "strict", "word", "lossless"])
def test_every_tokenizer_keeps_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.end_of_text_id == tokenizer.special_tokens[END_OF_TEXT]
    assert max(tokenizer.special_tokens.values()) == tokenizer.vocab_size - 1


def test_the_engine_can_be_chosen_when_loading(tmp_path):
    make_all()[0].save(tmp_path / "t.json")
    fast = load_tokenizer(tmp_path / "t.json", engine="tiktoken")
    assert fast.engine == "tiktoken"
    assert fast.encode(TEXT) == load_tokenizer(tmp_path / "t.json").encode(TEXT)


def test_a_special_token_spelt_like_an_ordinary_one_cannot_be_saved(tmp_path):
    # The token of the bytes " a" is spelt Ġa in the file, and so is this special token.
    tokenizer = BPETokenizer([(b" ", b"a")], special_tokens=["Ġa"])
    with pytest.raises(TokenizerError, match="the added token 'Ġa'"):
        tokenizer.save(tmp_path / "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


def _set(*path_and_value):
    """A change to a tokenizer.json: the value at a path."""
    *path, value = path_and_value

    def change(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def nested_sequence(depth):
    value = {"type": "NFC"}
    for _ in range(depth):
        value = {"type": "Sequence", "normalizers": [value]}
    return value


DAMAGES = {
    "no model": (_set("model", None), "it has no model"),
    "another model": (_set("model", "type", "Unigram"), "got 'Unigram'"),
    "a normalizer": (_set("normalizer", {"type": "Nmt"}), "normalizer"),
    "dropout": (_set("model", "dropout", 0.1), "dropout = 0.1"),
    "prefix": (_set("model", "continuing_subword_prefix", "##"), "continuing_subword_prefix"),
    "ignored merges": (_set("model", "ignore_merges", "yes"), "ignore_merges"),
    "bytes as fallback": (_set("model", "byte_fallback", 1.5), "byte_fallback"),
    "a prefix space": (_set("pre_tokenizer", "add_prefix_space", "yes"), "pre_tokenizer"),
    "a step of ours with more": (_set("pre_tokenizer", "lower", True), "pre_tokenizer"),
    "a bad pattern": (
        _set("normalizer", {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        "regular expression",
    ),
    "steps without end": (_set("normalizer", nested_sequence(30)), "normalizer"),
    "an unknown token that is none": (
        lambda document: (document["model"]["vocab"].pop("ď"), document["model"].update(unk_token="<u>")),
        "unk_token must be a token of the vocabulary, got '<u>'",
    ),
    "no pre-tokenizer": (_set("pre_tokenizer", None), "pre_tokenizer"),
    "a template": (_set("post_processor", {"type": "TemplateProcessing"}), "post_processor"),
    "another decoder": (_set("decoder", {"type": "Metaspace"}), "decoder"),
    "vocab is a list": (_set("model", "vocab", []), "'vocab' must be of type dict"),
    "merges missing": (_set("model", "merges", None), "'merges' must be of type list"),
    "merge of three": (_set("model", "merges", 3, ["a", "b", "c"]), "at number 3"),
    "merge is a number": (_set("model", "merges", 3, 7), "got 7 at number 3"),
    "merge unknown": (_set("model", "merges", 3, ["Q", "Q"]), "merge number 3"),
    "merge foreign": (_set("model", "merges", 3, ["▁", "a"]), "got '▁'"),
    "id too large": (_set("model", "vocab", "a", 10**9), "got 1000000000"),
    "id twice": (_set("model", "vocab", "a", 3), "id 3 belongs to both"),
    "id no number": (_set("model", "vocab", "a", [1]), r"got \[1\]"),
    "token of a merge missing": (
        lambda document: document["model"]["vocab"].pop("t"),
        "the vocabulary has no token b't'",
    ),
    "special ids differ": (_set("added_tokens", 0, "id", 5), "gives '<|endoftext|>' two ids"),
    "special without content": (_set("added_tokens", 0, "content", None), "'content' must be of type str"),
    "special is no object": (_set("added_tokens", 0, "x"), "added_tokens must be objects"),
    "special strips a little": (_set("added_tokens", 0, "lstrip", 0.5), "lstrip"),
    "special has another flag": (_set("added_tokens", 0, "loud", True), "loud"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_or_foreign_bpe_file_is_named_with_its_fault(name, tmp_path):
    change, message = DAMAGES[name]
    path = tmp_path / "tokenizer.json"
    make_all()[0].save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert caught.match(message.replace("|", r"\|"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("model", "scratchlm", None), "no model.scratchlm.class"),
        (_set("model", "scratchlm", {"class": "Other"}), "got 'Other'"),
        (_set("model", "vocab", "cat", 999), "must use each id from 0 to"),
        (_set("added_tokens", []), "added_tokens must be"),
    ],
)
def test_a_damaged_word_file_is_named_with_its_fault(change, message, tmp_path):
    path = tmp_path / "tokenizer.json"
    make_all()[3].save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'"x"', b"\xff\xfe", b'{"model": 5}'])
def test_what_is_no_tokenizer_at_all_is_an_error_with_the_path(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        load_tokenizer(path)


def test_a_missing_file_is_a_tokenizer_error(tmp_path):
    with pytest.raises(TokenizerError, match="No such file"):
        load_tokenizer(tmp_path / "none.json")


def test_old_files_with_merges_as_strings_are_read(tmp_path):
    tokenizer = make_all()[0]
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    old = copy.deepcopy(document)
    old["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    del old["model"]["type"], old["model"]["ignore_merges"]
    old["model"] |= {"unk_token": "", "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    path.write_text(json.dumps(old), encoding="utf-8")
    assert load_tokenizer(path).fingerprint == tokenizer.fingerprint


def test_tokenizers_are_imported_without_torch():
    code = "import sys, scratchlm.tokenizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
