"""Recompute the figures of chapters 2 to 4: tokens, attention, and the untrained model."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from scratchlm.assets.registry import asset_path
from scratchlm.book import ch02, ch03, ch04
from scratchlm.core.errors import UnknownWordError
from scratchlm.model.config import CONFIGS, GPTConfig, named_config
from scratchlm.tokenizers.bpe import BPETokenizer
from scratchlm.tokenizers.gpt2 import load_gpt2_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT, UNKNOWN
from scratchlm.tokenizers.word import build_vocab, split_words

SEED = 123  # the book's, everywhere
GISBURN = '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
TEA = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
UNKNOWN_PLACE = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
HELLO_I_AM = [15496, 11, 314, 716]
JOURNEY = [  # "Your journey starts with one step", three numbers a word
    [0.43, 0.15, 0.89],
    [0.55, 0.87, 0.66],
    [0.57, 0.85, 0.64],
    [0.22, 0.58, 0.33],
    [0.77, 0.25, 0.10],
    [0.05, 0.80, 0.55],
]


@functools.cache
def the_verdict() -> str:
    """The short story of chapter 2."""
    return asset_path("text/the-verdict.txt").read_text(encoding="utf-8")


@functools.cache
def gpt2_bpe() -> BPETokenizer:
    """GPT-2's tokenizer."""
    return load_gpt2_tokenizer(asset_path("gpt2_bpe/encoder.json"), asset_path("gpt2_bpe/vocab.bpe"))


def word_vocabulary(*special_tokens: str) -> dict[str, int]:
    """The vocabulary of the story's words."""
    return build_vocab(the_verdict(), special_tokens=special_tokens)


def v1() -> Any:
    """SimpleTokenizerV1 with the story's words."""
    return ch02.SimpleTokenizerV1(word_vocabulary())


def v2() -> Any:
    """SimpleTokenizerV2 with the story's words and a token for unknown ones."""
    return ch02.SimpleTokenizerV2(word_vocabulary(END_OF_TEXT, UNKNOWN))


def error_for_an_unknown_word() -> str:
    """The error of SimpleTokenizerV1 for "Hello"."""
    try:
        v1().encode("Hello, do you like tea. Is this-- a test?")
    except KeyError as error:
        is_named = isinstance(error, UnknownWordError) and "'Hello'" in str(error)
        return f"KeyError: {'Hello' if is_named else error}"
    return "no error"


def first_batch(*, batch_size: int, stride: int) -> list[Any]:
    """Inputs and targets of the loader's first batch."""
    loader = ch02.create_dataloader_v1(the_verdict(), batch_size, max_length=4, stride=stride, shuffle=False)
    inputs, targets = next(iter(loader))
    return [inputs.tolist(), targets.tolist()]


def simple_bpe_merges() -> int:
    """Number of merges that the chapter's own BPE learns."""
    tokenizer = ch02.BPETokenizerSimple()
    tokenizer.train(the_verdict(), vocab_size=1000, allowed_special={END_OF_TEXT})
    return len(tokenizer.bpe_merges)


def context_vectors(make: Callable[[], torch.nn.Module], *, seed: int = SEED) -> list[list[float]]:
    """The outputs of an attention layer for the six words of JOURNEY."""
    torch.manual_seed(seed)
    layer = make()
    words = torch.tensor(JOURNEY)
    is_for_one_text = isinstance(layer, (ch03.SelfAttention_v1, ch03.SelfAttention_v2))
    with torch.no_grad():
        vectors = layer(words) if is_for_one_text else layer(torch.stack([words, words]))[0]
    rows: list[list[float]] = vectors.tolist()
    return rows


def causal_vectors() -> list[list[float]]:
    """The outputs of one causal head."""
    return context_vectors(lambda: ch03.CausalAttention(3, 2, 6, 0.0))


def multi_head_vectors() -> list[list[float]]:
    """The outputs of two heads in one layer."""
    return context_vectors(lambda: ch03.MultiHeadAttention(3, 2, 6, 0.0, num_heads=2))


def n_parameters(size: str) -> list[int]:
    """Number of parameters with a separate output head and without."""
    with torch.device("meta"):
        model = ch04.GPTModel(named_config(size))
    untied = sum(p.numel() for p in model.parameters())
    return [untied, untied - model.out_head.weight.numel()]


def megabytes() -> list[float]:
    """Memory of the four sizes of GPT-2 in float32, in MiB."""
    sizes = [name for name in CONFIGS if name.startswith("gpt2-")]
    return [round(n_parameters(size)[0] * 4 / 1024**2, 2) for size in sizes]


def block_parameters() -> list[int]:
    """Number of parameters of a block's feed-forward network and of its attention."""
    with torch.device("meta"):
        block = ch04.TransformerBlock(named_config("gpt2-small"))
    return [sum(p.numel() for p in half.parameters()) for half in (block.ff, block.att)]


def untrained_model(context_length: int) -> Any:
    """The 124M model with random weights from seed 123."""
    torch.manual_seed(SEED)
    return ch04.GPTModel(GPTConfig(context_length=context_length)).eval()


@functools.cache
def untrained_ids() -> list[int]:
    """Ids that the untrained model generates after "Hello, I am"."""
    model = untrained_model(1024)
    ids: torch.Tensor = ch04.generate_text_simple(model, torch.tensor([HELLO_I_AM]), 10, 1024)
    row: list[int] = ids[0].tolist()
    return row


FIGURES: dict[str, Callable[[], Any]] = {
    "ch02.characters": lambda: len(the_verdict()),
    "ch02.word-tokens": lambda: len(split_words(the_verdict())),
    "ch02.vocabulary-v1": lambda: len(word_vocabulary()),
    "ch02.vocabulary-v2": lambda: len(word_vocabulary(END_OF_TEXT, UNKNOWN)),
    "ch02.v1-encode": lambda: v1().encode(GISBURN),
    "ch02.v1-decode": lambda: v1().decode(v1().encode(GISBURN)),
    "ch02.v1-unknown-word": error_for_an_unknown_word,
    "ch02.v2-encode": lambda: v2().encode(TEA),
    "ch02.v2-decode": lambda: v2().decode(v2().encode(TEA)),
    "ch02.bpe-encode": lambda: gpt2_bpe().encode(UNKNOWN_PLACE, allowed_special={END_OF_TEXT}),
    "ch02.bpe-exercise": lambda: gpt2_bpe().encode("Akwirw ier"),
    "ch02.bpe-tokens": lambda: len(gpt2_bpe().encode(the_verdict())),
    "ch02.first-batch": lambda: first_batch(batch_size=1, stride=1),
    "ch02.batch-of-8": lambda: first_batch(batch_size=8, stride=4),
    "ch02.bpe-merges": simple_bpe_merges,
    "ch03.self-attention-v1": lambda: context_vectors(lambda: ch03.SelfAttention_v1(3, 2)),
    "ch03.self-attention-v2": lambda: context_vectors(lambda: ch03.SelfAttention_v2(3, 2), seed=789),
    "ch03.causal-attention-all": causal_vectors,
    "ch03.multi-head-wrapper": lambda: context_vectors(
        lambda: ch03.MultiHeadAttentionWrapper(3, 2, 6, 0.0, num_heads=2)
    ),
    "ch03.causal-attention": lambda: causal_vectors()[-1],
    "ch03.multi-head-first": lambda: multi_head_vectors()[0],
    "ch03.multi-head-last": lambda: multi_head_vectors()[-1],
    **{
        f"ch04.parameters-{size}": functools.partial(n_parameters, f"gpt2-{size}")
        for size in ("small", "medium", "large", "xl")
    },
    "ch04.megabytes": megabytes,
    "ch04.block-parameters": block_parameters,
    "ch04.untrained-ids": untrained_ids,
    "ch04.untrained-text": lambda: gpt2_bpe().decode(untrained_ids()[:10]),
}
