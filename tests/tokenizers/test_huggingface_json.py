"""What a tokenizer.json may say besides GPT-2's rules, part for part, beside Hugging Face `tokenizers`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from scratchlm.core.errors import ConfigError, TokenizerError
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.families import SMOLLM
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.huggingface_json import BPEVariant, bpe_from_json
from scratchlm.tokenizers.pretokenizer import ByteLevel, Digits
from tests.tokenizers.odd_strings import odd_strings
from tests.tokenizers.test_families import gpt2, ids_of, llama3, qwen3

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NO_REGEX = BYTES | {"use_regex": False}
END = "<|endoftext|>"


def cut(
    pattern: str, behavior: str = "Isolated", *, invert: bool = False, kind: str = "Regex"
) -> dict[str, Any]:
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def steps(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(entries)}}


def normalizer(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(entries)}}


def word(content: str, id_: int = 460, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"id": id_, "content": content, **plain, **flags}


def also(*tokens: dict[str, Any]) -> dict[str, Any]:
    """Added tokens besides the end of a text."""
    return {"added_tokens": [word(END, 0, special=True, normalized=False), *tokens]}


def template(single: list[dict[str, Any]]) -> dict[str, Any]:
    special = {END: {"id": END, "ids": [0], "tokens": [END]}}
    return {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": special,
        }
    }


A, MARK = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}
VARIANTS: dict[str, dict[str, Any]] = {
    "prefix space": {"pre_tokenizer": BYTES | {"add_prefix_space": True}},
    "prefix space of every piece": steps(
        {"type": "Digits", "individual_digits": True}, BYTES | {"add_prefix_space": True}
    ),
    "prefix space without pattern": {"pre_tokenizer": NO_REGEX | {"add_prefix_space": True}},
    "no pattern": {"pre_tokenizer": NO_REGEX},
    "offsets": {"pre_tokenizer": BYTES | {"trim_offsets": False}},
    "one step": steps(BYTES),
    "steps within steps": steps(steps(cut(r"\d"))["pre_tokenizer"], BYTES),
    "runs of digits": steps({"type": "Digits", "individual_digits": False}, BYTES),
    "a string": steps(cut(" ", "MergedWithNext", kind="String"), NO_REGEX),
    "a string that is a pattern": steps(cut("...", kind="String"), BYTES),
    "an empty string": steps(cut("", kind="String"), BYTES),
    "two patterns": steps(cut(r"\p{N}{1,3}"), cut(r"[\p{L}]+|\s+"), NO_REGEX),
    "pattern and GPT-2's": steps(cut(r"[a-z]{2}"), BYTES),
    **{
        f"{behavior}{', inverted' * invert}": steps(cut(r"[aeiou ]", behavior, invert=invert), NO_REGEX)
        for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")
        for invert in (False, True)
    },
    **{
        form: {"normalizer": {"type": form}}
        for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents")
    },
    "strip": {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
    "strip left": {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": False}},
    "prepend": {"normalizer": {"type": "Prepend", "prepend": "_"}},
    "replace": {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": r"\1"}},
    "replace a pattern": {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}},
    "no change": normalizer(),
    "three changes": normalizer({"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}),
    "a word": also(word("covid19")),
    "a word of the vocabulary": also(word("ab", 258)),
    "a byte as padding": also(word("!", 1, special=True)),
    "a byte as a word": also(word("½", 122, normalized=False)),
    "a word with spaces": also(word("the cat")),
    "a word before normalizing": normalizer({"type": "Lowercase"}) | also(word("IT'S", normalized=False)),
    "a word after normalizing": normalizer({"type": "Lowercase"}) | also(word("IT'S", normalized=True)),
    "a single word": also(word("covid19", single_word=True)),
    "left space": also(word("<mask>", lstrip=True, special=True)),
    "right space": also(word("<mask>", rstrip=True)),
    "all space": also(word("<mask>", lstrip=True, rstrip=True, single_word=True)),
    "words within words": also(word("ab", 258), word("abab", 259), word("a", 65, single_word=True)),
    "a hole": also(word("<pad>", 465, special=True)),
    "two special": also(word("[PAD]", special=True, normalized=False), word("[MASK]", 461, special=True)),
    "none added": {"added_tokens": []},
    "a sequence of decoders": {"decoder": {"type": "Sequence", "decoders": [BYTES, {"type": "Fuse"}]}},
    "no decoder": {"decoder": None},
    "begin and end": template([MARK, A, MARK]),
    "end": template([A, MARK]),
    "Roberta": {
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, 0],
            "cls": [END, 0],
            "trim_offsets": True,
            "add_prefix_space": False,
        }
    },
    "truncation": {
        "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    },
    "padding": {
        "padding": {
            "strategy": {"Fixed": 32},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": END,
        }
    },
    "ignored merges": {"model": {"ignore_merges": True}},
    "unknown": {"model": {"unk_token": END}, "lacks": "ĀāĄ"},
    "unknown in one": {"model": {"unk_token": END, "fuse_unk": True}, "lacks": "ĀāĄã"},
    "dropped": {"lacks": "ĀāĄãé"},
    "bytes as fallback": {
        "model": {"byte_fallback": True, "unk_token": END},
        "lacks": "ĀāĄ",
        "fallback": True,
    },
    "merges in any order": {"reverses_merges": True},
    "a merge twice": {"repeats_merge": True},
    "merges as strings": {"merges_as_strings": True},
}


def written(changes: dict[str, Any]) -> dict[str, Any]:
    """GPT-2's file with the changes; the keys that no file has say what happens to vocabulary and merges."""
    changes = dict(changes)
    value = json.loads(gpt2().to_str())
    model = value["model"] | changes.pop("model", {})
    model["vocab"] |= changes.pop("more", {})
    for symbol in changes.pop("lacks", ""):
        model["merges"] = [pair for pair in model["merges"] if symbol not in "".join(pair)]
        del model["vocab"][symbol]
    if changes.pop(
        "fallback", False
    ):  # the symbol of byte 0, Ā, is 0xC4 0x80 in UTF-8; that of 1 has no token
        model["vocab"] |= {"<0xC4>": 460, "<0x80>": 461}
    if changes.pop("reverses_merges", False):
        model["merges"].reverse()
    if changes.pop("repeats_merge", False):
        model["merges"].append(model["merges"][0])
    if changes.pop("merges_as_strings", False):
        model["merges"] = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    return value | changes | {"model": model}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_gives_the_ids_of_tokenizers_and_is_kept(name, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(written(VARIANTS[name])), encoding="utf-8")
    theirs, ours = Tokenizer.from_file(str(path)), load_tokenizer(path)
    ours.save(tmp_path / "saved.json")
    reread, again = Tokenizer.from_file(str(tmp_path / "saved.json")), load_tokenizer(tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text(encoding="utf-8"))
    assert again.fingerprint == ours.fingerprint
    assert saved["truncation"] == VARIANTS[name].get("truncation")
    assert saved["padding"] == VARIANTS[name].get("padding")
    assert reread.get_added_tokens_decoder() == theirs.get_added_tokens_decoder()
    for tokenizer in (theirs, reread):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    added = [token.content for token in theirs.get_added_tokens_decoder().values()]
    for text in odd_strings(
        120, also=[*added, *(f" {content} " for content in added), "covid19s", "xcovid19"]
    ):
        ids = ours.encode(text)
        assert ids == ids_of(theirs, text, special=False), repr(text)
        assert again.encode(text) == ids
        ids = ours.encode(text, allowed_special="all")
        assert ids == ids_of(theirs, text, special=True), repr(text)
        assert ids == ids_of(reread, text, special=True), repr(text)
        assert reread.encode(text).ids == theirs.encode(text).ids, repr(text)


@pytest.mark.parametrize("family", [llama3, qwen3])
@given(text=st.text(st.sampled_from("aé e\u0301'sSt12٣½ \n\t.!日😀"), max_size=30))
def test_ids_equal_those_of_tokenizers_on_any_text(family, text):
    theirs, ours = _pair(family)
    assert ours.encode(text) == ids_of(theirs, text, special=False)


_PAIRS: dict[Any, tuple[Tokenizer, BPETokenizer]] = {}


def _pair(family: Any) -> tuple[Tokenizer, BPETokenizer]:
    if family not in _PAIRS:
        theirs = family()
        value = json.loads(theirs.to_str())
        merges, vocab, added, variant = bpe_from_json(value, where="the family's file")
        _PAIRS[family] = theirs, BPETokenizer(merges, vocab=vocab, added_tokens=added, variant=variant)
    return _PAIRS[family]


def test_where_a_text_begins_and_ends_is_read_from_the_file():
    theirs, ours = _pair(llama3)
    assert ours.begin_of_text_id == theirs.encode("x").ids[0] == theirs.token_to_id("<|begin_of_text|>")
    assert ours.end_of_text_id == theirs.token_to_id("<|end_of_text|>")
    assert _pair(qwen3)[1].begin_of_text_id is None


def test_ids_without_a_token_are_known_and_stand_for_nothing(tmp_path):
    value = written(also(word("<pad>", 460, special=True)))
    value["model"]["vocab"]["<later>"] = 470
    (tmp_path / "tokenizer.json").write_text(json.dumps(value), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 471
    assert tokenizer.unused_ids == [460, *range(462, 470)]  # as in `tokenizers`, which gives <pad> the 461
    assert tokenizer.decode([470, 465, 461]) == "<later><pad>"
    with pytest.raises(TokenizerError, match="from 0 to 470"):
        tokenizer.decode([471])


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Nmt"}},
        {"normalizer": {"type": "NFC", "more": 1}},
        {"normalizer": {"type": "Strip", "strip_left": 1, "strip_right": True}},
        {"normalizer": {"type": "Replace", "pattern": "a", "content": ""}},
        {"post_processor": {"type": "BertProcessing"}},
        template([MARK, MARK, A]),
        {"pre_tokenizer": {"type": "Digits", "individual_digits": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "trim_offsets": True}},
        {
            "pre_tokenizer": {
                "type": "Metaspace",
                "replacement": "_",
                "prepend_scheme": "always",
                "split": True,
            }
        },
        steps(BYTES, {"type": "Whitespace"}),
        {"decoder": {"type": "Sequence", "decoders": [BYTES, {"type": "Strip"}]}},
        {"decoder": {"type": "ByteFallback"}},
        {"model": {"dropout": 0.1}},
        {"model": {"end_of_word_suffix": "</w>"}},
    ],
    ids=str,
)
def test_a_part_that_we_do_not_have_is_refused_by_name(changes, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(written(changes)))
    with pytest.raises(TokenizerError, match="affects the ids and is not supported"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (steps(cut("a", "Merged"), NO_REGEX), "behavior must be one of Removed, .* got 'Merged'"),
        (steps(cut("("), NO_REGEX), "is not a valid regular expression"),
        (steps(cut(r"[a&&b]"), NO_REGEX), "does not mean the same in Python"),
        (
            normalizer(*[{"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}] * 6),
            "may make a text 4,096 times as long, and 1000 is the limit",
        ),
        (steps(BYTES, BYTES), "must have ByteLevel as its last step"),
        ({"more": {"a\ud800": 460}}, r"has the token 'a\\ud800', which is not valid Unicode"),
    ],
    ids=str,
)
def test_a_part_with_a_wrong_value_is_an_error_with_the_file(changes, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(written(changes)))
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json:? .*{message}"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_impossible_variants_are_refused():
    with pytest.raises(ConfigError, match="must have ByteLevel as its last step and nowhere else"):
        BPETokenizer([], variant=BPEVariant(steps=(ByteLevel(), Digits(individual_digits=True))))
    with pytest.raises(TokenizerError, match="begin_of_text must be one of the special tokens"):
        BPETokenizer([], variant=BPEVariant(begin_of_text="<s>"))
    with pytest.raises(ConfigError, match="supports only GPT-2's rules"):
        BPETokenizer([], variant=SMOLLM, engine="tiktoken")
