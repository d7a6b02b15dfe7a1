"""Tokenizers of later families against Hugging Face `tokenizers`, which reads the same tokenizer.json."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex as HFRegex
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.families import SMOLLM
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.huggingface_json import BPEVariant
from scratchlm.tokenizers.pretokenizer import ByteLevel, Digits

LLAMA3_PATTERN = (  # published in the tokenizer.json of Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = ["The cafe's 12 doors and 3456 mats, it's 1999!\n\nThe dog sat; naïve cafés don't.\r\n\t 7 8 9"] * 4
TEXTS = [
    "The cafe's 12345 doors",
    "IT'S 1999\n\n\n  x",
    " 12 3a4 ",
    "  \n 7\t8 ",
    "caf\u0065\u0301 naïve ²³ ٣٤ Ⅷ",
    "don't  stop—now… 😀 日本語",
    "",
    "0000000",
]


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(HFRegex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained(pre_tokenizer, *, special, normalizer=None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def llama3() -> Tokenizer:
    tokenizer = trained(split(LLAMA3_PATTERN), special=["<|begin_of_text|>", "<|end_of_text|>"])
    value = json.loads(tokenizer.to_str())
    value["model"]["ignore_merges"] = True
    tokenizer = Tokenizer.from_str(json.dumps(value))
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen() -> Tokenizer:
    return trained(
        split(QWEN_PATTERN), special=["<|endoftext|>", "<|im_start|>"], normalizer=normalizers.NFC()
    )


def smollm() -> Tokenizer:
    cuts = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
    return trained(pre_tokenizers.Sequence(cuts), special=["<|endoftext|>", "<|im_start|>"])


FAMILIES = {"llama 3": llama3, "qwen": qwen, "smollm 2": smollm}


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    theirs = FAMILIES[request.param]()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    theirs.save(str(path))
    return theirs, load_tokenizer(path)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_hugging_faces(pair, text):
    theirs, ours = pair
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@given(text=st.text(st.sampled_from("aé e\u0301'sSt12٣½ \n\t.!日😀"), max_size=30))
def test_ids_equal_hugging_faces_on_any_text(pair, text):
    theirs, ours = pair
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) in (text, unicodedata.normalize("NFC", text))


def test_saved_again_it_is_the_same_tokenizer(pair, tmp_path):
    theirs, ours = pair
    ours.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.variant == ours.variant
    assert again.fingerprint == ours.fingerprint
    reread = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert reread.encode(text).ids == theirs.encode(text).ids


def test_where_a_text_begins_and_ends_is_read_from_the_file(pair):
    theirs, ours = pair
    first = theirs.encode("x").ids[0]
    expected = first if theirs.id_to_token(first) == "<|begin_of_text|>" else None
    assert ours.begin_of_text_id == expected
    assert theirs.id_to_token(ours.end_of_text_id) in ("<|endoftext|>", "<|end_of_text|>")


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Nmt"}},
        {"normalizer": {"type": "NFC", "more": 1}},
        {"post_processor": {"type": "RobertaProcessing"}},
        {"pre_tokenizer": {"type": "Digits", "individual_digits": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "trim_offsets": True}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}},
        {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Strip"}]}},
    ],
)
def test_a_setting_that_we_do_not_have_is_refused(changes, tmp_path):
    value = json.loads(qwen().to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**value, **changes}))
    with pytest.raises(TokenizerError, match="which would change the ids"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_impossible_variants_are_refused():
    with pytest.raises(ConfigError, match="must cut text by ByteLevel once, as its last step"):
        BPETokenizer([], variant=BPEVariant(steps=(ByteLevel(), Digits(individual_digits=True))))
    with pytest.raises(TokenizerError, match="begin_of_text must be one of the special tokens"):
        BPETokenizer([], variant=BPEVariant(begin_of_text="<s>"))
    with pytest.raises(ConfigError, match="runs GPT-2's rules"):
        BPETokenizer([], variant=SMOLLM, engine="tiktoken")
