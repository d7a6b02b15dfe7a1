"""Our GGUF in llama.cpp itself: it loads, splits text into the same ids, and writes the same tokens."""

import dataclasses
import unicodedata

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.llama_cpp import N_NEW, in_llama_cpp
from scratchlm.checkpoints.gguf import tokenizer as gguf_tokenizer
from scratchlm.checkpoints.gguf.gguf_file import GGUFFile
from scratchlm.checkpoints.gguf.modelfile import PromptFrame, chat_template
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.gguf.tokenizer import tokenizer_from_settings
from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.config import GPTConfig, RopeScaling
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers import BPETokenizer, load_gpt2_tokenizer
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.tokenizers.files import load_tokenizer
from tests.tokenizers.odd_strings import odd_strings
from tests.tokenizers.test_families import FAMILIES

pytest.importorskip("xllamacpp")

TEXTS = [
    "Hello, do you like tea?",
    "They're sure I'd've said we'll see it's Bob's; DON'T 'tis 'S 'Ll",
    "0 12 345 6789 1,234.50 ½ ³ Ⅷ ٣٤",
    "  two  three   spaces    ",
    " leading, trailing ",
    "tabs\tand\nlines\n\n\nand \r\n more \n ",
    "naïve café Straße Ελλάδα русский 日本語 한국어 हिन्दी עברית ไทย",
    "👍🏽 👩‍👩‍👧 e\u0301 \u00a0 \u2003 \u200b \ufeff",
    "def f(x):\n    return x**2  # ok!?",
    "<|endoftext|> is text here",
    "",
]
LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False, "ff_dim": 96}
KINDS = {
    "gpt2": {},
    "gpt2 tied, with biases": {"qkv_bias": True, "tie_embeddings": True},
    "llama": LLAMA,
    "llama grouped, tied": LLAMA | {"n_kv_heads": 2, "tie_embeddings": True},
    "llama 3": LLAMA
    | {"n_kv_heads": 2, "rope_base": 500000.0, "rope_scaling": RopeScaling(original_context_length=32)},
    "qwen2": LLAMA | {"n_kv_heads": 2, "qkv_bias": True},
    "qwen3": LLAMA | {"n_kv_heads": 1, "qk_norm": True, "head_size": 32, "norm_eps": 1e-6},
}
PROMPTS = [[5, 6, 7, 200, 31], [260, 33, 258]]


@pytest.fixture(scope="module")
def tokenizer():
    text = "The cat sat on the mat. They've 123 bones! Wasn't it odd? café, naïve\n\n  and so on 12 34 "
    return train_bpe([text * 40], 320, special_tokens=["<|endoftext|>"])


def make_model(kind: str, vocab_size: int) -> GPTModel:
    """Random, and wide awake: torch's initialisation lets every token sway the next."""
    torch.manual_seed(1)
    sizes = {"vocab_size": vocab_size, "context_length": 64, "emb_dim": 64, "n_heads": 4, "n_layers": 2}
    return GPTModel(GPTConfig(**(sizes | KINDS[kind]))).eval()


def greedy(model: GPTModel, prompts: list[list[int]], *, end: int) -> list[list[int]]:
    """Up to the end-of-text, which llama.cpp counts among what it wrote."""
    config = GenerationConfig(max_new_tokens=N_NEW)
    written = [list(generate_ids(model, [prompt], config)[0].ids) for prompt in prompts]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in written]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_writes_the_same_tokens(tmp_path, tokenizer, kind, dtype):
    """Float16 weights are compared with our own model of the same weights."""
    model = make_model(kind, tokenizer.vocab_size)
    path = export_gguf(tmp_path / "a.gguf", model, tokenizer, dtype=dtype)
    if dtype != "f32":
        model = read_gguf(path).model
    expected = greedy(model, PROMPTS, end=tokenizer.end_of_text_id)
    assert N_NEW in map(len, expected)  # not every text ends early
    assert in_llama_cpp(path, prompts=PROMPTS)["written"] == expected


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "limit"), [("f32", 5e-4), ("f16", 2e-3), ("bf16", 1e-2), ("q8_0", 2e-2)])
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_gives_the_same_odds(tmp_path, tokenizer, kind, dtype, limit):
    """Limits are parts of the largest logit: llama.cpp looks GELU up in a float16 table, and rounds activations
    to the kind of the weights. For the Llama family in float32 it is 1e-6."""
    path = export_gguf(tmp_path / "a.gguf", make_model(kind, tokenizer.vocab_size), tokenizer, dtype=dtype)
    model = read_gguf(path).model
    logits_after = {i: model(torch.tensor([[i, i + 1, i + 2]]))[0, -1] for i in range(60)}
    # llama.cpp reports no odds of a token that is only part of a character
    shown = [i for i, logits in logits_after.items() if tokenizer.token_bytes(int(logits.argmax())).isalnum()]
    prompts = [[i, i + 1, i + 2] for i in shown[:3]]
    assert prompts
    log_probs = in_llama_cpp(path, prompts=prompts)["log_probs"]
    for (start, *_), theirs in zip(prompts, log_probs, strict=True):
        ours = logits_after[start].log_softmax(dim=-1)
        difference = max(abs(ours[id_].item() - log_prob) for id_, log_prob in theirs)
        assert difference < limit * logits_after[start].abs().max()


@pytest.mark.slow
def test_llama_cpp_splits_text_as_our_trained_tokenizer_does(tmp_path, tokenizer):
    path = export_gguf(tmp_path / "a.gguf", make_model("gpt2", tokenizer.vocab_size + 3), tokenizer)
    assert in_llama_cpp(path, texts=TEXTS)["ids"] == [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.slow
def test_llama_cpp_splits_text_as_gpt2_does(tmp_path, real_data):
    folder = real_data / "gpt2_bpe"
    tokenizer = load_gpt2_tokenizer(folder / "encoder.json", folder / "vocab.bpe")
    path = export_gguf(tmp_path / "a.gguf", make_model("gpt2", tokenizer.vocab_size), tokenizer)
    assert read_gguf(path).tokenizer.fingerprint == tokenizer.fingerprint
    assert in_llama_cpp(path, texts=TEXTS)["ids"] == [tokenizer.encode(text) for text in TEXTS]


# Where llama.cpp differs from `tokenizers`: it folds the case of ASCII letters only, so 'ſ is no 's; and its gpt-4o
# ends a word before a combining mark, which the pattern of o200k counts among the letters.
LONG_S = "'\u017f"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama3", "qwen3", "smollm", "starcoder", "gpt4", "o200k"])
def test_llama_cpp_splits_a_thousand_odd_strings_as_other_families_do(tmp_path, family):
    FAMILIES[family]().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    path = export_gguf(tmp_path / "a.gguf", make_model("llama", tokenizer.vocab_size), tokenizer)
    read = read_gguf(path).tokenizer
    words = [token.content for token in tokenizer.added_tokens]
    texts = [unicodedata.normalize("NFC", text) for text in odd_strings(1200, also=words)]
    texts = [text for text in texts if text and LONG_S not in text][:1000]
    if family == "o200k":
        texts = [text for text in texts if not any(unicodedata.category(char)[0] == "M" for char in text)]
    assert in_llama_cpp(path, texts=texts)["ids"] == [read.encode(text) for text in texts]
    if family != "smollm":  # whose unknown token llama.cpp has not
        assert [read.encode(text) for text in texts] == [tokenizer.encode(text) for text in texts]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*gguf_tokenizer._ALIASES, "tekken"])
def test_llama_cpp_splits_a_thousand_odd_strings_under_every_name_that_we_read(
    tmp_path, tokenizer, monkeypatch, name
):
    variant = dict(reversed(gguf_tokenizer._VARIANTS))[gguf_tokenizer._ALIASES.get(name, name)]
    variant = dataclasses.replace(variant, normalizers=())
    monkeypatch.setattr(gguf_tokenizer, "_VARIANTS", ((name, variant),))
    family = BPETokenizer(tokenizer.merges, special_tokens=["<|endoftext|>"], variant=variant)
    path = export_gguf(tmp_path / "a.gguf", make_model("llama", family.vocab_size), family)
    monkeypatch.undo()
    assert GGUFFile(path).metadata["tokenizer.ggml.pre"] == name
    read = read_gguf(path).tokenizer
    texts = [unicodedata.normalize("NFC", text) for text in odd_strings(1200)]
    texts = [text for text in texts if text and LONG_S not in text][:1000]
    if name == "tekken":  # as gpt-4o; and it folds no case outside of ASCII
        texts = [text for text in texts if all(char.isascii() or not char.isalpha() for char in text)]
        texts = [text for text in texts if not any(unicodedata.category(char)[0] == "M" for char in text)]
    assert in_llama_cpp(path, texts=texts)["ids"] == [read.encode(text) for text in texts]


@pytest.mark.slow
def test_smollm_2_splits_a_thousand_odd_strings_as_tokenizers_and_llama_cpp_do(real_data):
    """Of 1,000 strings three differ from llama.cpp: where the vocabulary lacks a byte, its neighbours may join as in
    `tokenizers`, and may not in llama.cpp."""
    path = real_data / "weights" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    settings = GGUFFile(path).metadata
    tokens, merges = settings["tokenizer.ggml.tokens"], settings["tokenizer.ggml.merges"]
    ours = tokenizer_from_settings(settings, where=path.name)
    theirs = Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges])
    )
    digits = pre_tokenizers.Digits(individual_digits=True)
    theirs.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    theirs.add_special_tokens(list(ours.special_tokens))
    theirs.encode_special_tokens = True
    texts = [text for text in odd_strings(1001, also=["<|im_start|>", "<|endoftext|>"]) if text]
    expected = [ours.encode(text) for text in texts]
    assert [theirs.encode(text).ids for text in texts] == expected
    lacks = [chr(byte) for byte in (4, 6, 19, 20, 22, 29)]
    for text, ids, ids_there in zip(texts, expected, in_llama_cpp(path, texts=texts)["ids"], strict=True):
        assert ids_there == ids or any(char in text for char in lacks), repr(text)


@pytest.mark.slow
def test_llama_cpp_asks_in_the_words_of_the_template(tmp_path, tokenizer):
    frame = PromptFrame(before="### Instruction:\n", after="\n\n### Response:\n")
    path = export_gguf(
        tmp_path / "a.gguf",
        make_model("gpt2", tokenizer.vocab_size),
        tokenizer,
        chat_template=chat_template(frame),
    )
    asked = in_llama_cpp(path, question="Say hi")["prompt"]
    assert asked == "### Instruction:\nSay hi\n\n### Response:\n"
