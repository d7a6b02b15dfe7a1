"""Each family's tokenizer, in its published configuration over a small vocabulary, beside Hugging Face `tokenizers`."""

import json
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Regex as HFRegex

from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.families import CL100K, GPT2, LLAMA3, O200K, QWEN2, SMOLLM
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.huggingface_json import BPEVariant
from tests.tokenizers.odd_strings import PARTS, odd_strings

CUTS = (  # as Llama 3, Qwen and GPT-4 publish it, but for their way with numbers
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K_CUTS = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
DEEPSEEK_CUTS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
CORPUS = [
    "The cafe's 12 doors and 3456 mats, it's 1999!\n\nThe dog sat; naïve cafés don't.\r\n\t 7 8 9",
    *PARTS,
] * 3


def last(use_regex: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Split(HFRegex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*steps, last()])


def trained(
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    *,
    special: list[str],
    lacks: bytes = b"",
    normalizer: normalizers.Normalizer | None = None,
    words: tuple[AddedToken, ...] = (),
    **model: Any,
) -> Tokenizer:
    """A tokenizer with that way of cutting, trained on the corpus; `words` are added later, not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(list(words))
    value = json.loads(tokenizer.to_str())
    value["model"] |= model
    for byte in lacks:  # control characters and bytes of no UTF-8 text: no merge has them
        value["model"]["vocab"].pop(BYTE_SYMBOLS[byte], None)
    return Tokenizer.from_str(json.dumps(value))


BYTE_SYMBOLS = {byte: chr(256 + byte) for byte in range(32)} | {byte: chr(byte) for byte in range(192, 256)}
SMOLLM_LACKS = bytes([4, 6, 19, 20, 22, 29, 192, 193, *range(245, 256)])  # as SmolLM 2's vocabulary does


def gpt2() -> Tokenizer:
    return trained(last(use_regex=True), special=["<|endoftext|>"])


def llama3() -> Tokenizer:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    tokenizer = trained(split(CUTS.replace("DIGITS", r"\p{N}{1,3}")), special=special, ignore_merges=True)
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def qwen3() -> Tokenizer:
    return trained(
        split(CUTS.replace("DIGITS", r"\p{N}")),
        special=["<|endoftext|>", "<|im_start|>"],
        normalizer=normalizers.NFC(),
        words=(AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)),
    )


def digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), last(use_regex=True)])


def smollm() -> Tokenizer:
    return trained(
        digits(), special=["<|endoftext|>", "<|im_start|>"], lacks=SMOLLM_LACKS, unk_token="<|endoftext|>"
    )


def smollm_gguf() -> Tokenizer:
    return trained(digits(), special=["<|endoftext|>", "<|im_start|>"], lacks=SMOLLM_LACKS)


def starcoder() -> Tokenizer:
    return trained(digits(), special=["<|endoftext|>", "<fim_prefix>"])


def gpt4() -> Tokenizer:
    return trained(split(CUTS.replace("DIGITS", r"\p{N}{1,3}")), special=["<|endoftext|>"])


def o200k() -> Tokenizer:
    return trained(split(O200K_CUTS), special=["<|endoftext|>"])


def deepseek() -> Tokenizer:
    return trained(split(*DEEPSEEK_CUTS), special=["<|endoftext|>"], words=(AddedToken("<｜Assistant｜>"),))


def olmo() -> Tokenizer:
    """GPT-NeoX's: runs of spaces are tokens that were added."""
    spaces = tuple(AddedToken(" " * n, normalized=True) for n in (2, 3, 4, 8))
    return trained(
        last(use_regex=True),
        special=["<|endoftext|>", "<|padding|>"],
        normalizer=normalizers.NFC(),
        words=spaces,
    )


FAMILIES = {
    function.__name__: function
    for function in (gpt2, llama3, qwen3, smollm, smollm_gguf, starcoder, gpt4, o200k, deepseek, olmo)
}
VARIANTS = {
    "gpt2": GPT2,
    "llama3": LLAMA3,
    "qwen3": QWEN2,
    "smollm_gguf": SMOLLM,
    "starcoder": SMOLLM,
    "gpt4": CL100K,
    "o200k": O200K,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> tuple[str, Tokenizer, BPETokenizer]:
    theirs = FAMILIES[request.param]()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    theirs.save(str(path))
    return request.param, theirs, load_tokenizer(path)


def ids_of(theirs: Tokenizer, text: str, *, special: bool) -> list[int]:
    theirs.encode_special_tokens = not special
    return theirs.encode(text, add_special_tokens=False).ids


def texts_for(theirs: Tokenizer) -> list[str]:
    added = [token.content for token in theirs.get_added_tokens_decoder().values()]
    return odd_strings(1000, also=added)


def test_a_thousand_odd_strings_get_the_ids_of_tokenizers(family):
    _, theirs, ours = family
    for text in texts_for(theirs):
        assert ours.encode(text) == ids_of(theirs, text, special=False), repr(text)
        ids = ours.encode(text, allowed_special="all")
        assert ids == ids_of(theirs, text, special=True), repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False), repr(text)


def test_saved_by_us_they_still_get_them(family, tmp_path):
    _, theirs, ours = family
    ours.save(tmp_path / "tokenizer.json")
    reread, again = Tokenizer.from_file(str(tmp_path / "tokenizer.json")), load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.variant.kept == ours.variant.kept
    for text in texts_for(theirs)[::4]:
        assert ids_of(reread, text, special=True) == ids_of(theirs, text, special=True)
        assert reread.encode(text).ids == theirs.encode(text).ids  # with what a template adds
        assert again.encode(text) == ours.encode(text)


def test_what_is_streamed_is_what_is_decoded(family):
    _, theirs, ours = family
    for text in texts_for(theirs)[::10]:
        ids, decoder = ours.encode(text, allowed_special="all"), ours.stream_decoder()
        assert "".join(map(decoder.push, ids)) + decoder.flush() == ours.decode(ids)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_we_know_of_a_family_is_what_its_file_says(name, tmp_path):
    FAMILIES[name]().save(str(tmp_path / "tokenizer.json"))
    read = load_tokenizer(tmp_path).variant
    known: BPEVariant = VARIANTS[name]
    assert (read.steps, read.normalizers, read.ignore_merges) == (
        known.steps,
        known.normalizers,
        known.ignore_merges,
    )
