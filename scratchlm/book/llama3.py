"""Llama 3 under the names of the book's package: the model, its parts, weights, tokenizer and chat format."""

import base64
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import tiktoken
import torch

from scratchlm.book import llama_family
from scratchlm.book.gpt2_weights import assign
from scratchlm.book.kv_cache.utils import KVCache
from scratchlm.book.llama_family import (
    NO_LIMIT,
    FeedForward,
    LlamaFamilyModel,
    apply_rope,
    compute_rope_params,
    default_dtype,
)
from scratchlm.book.llama_family import load_weights as load_weights_into_llama
from scratchlm.checkpoints.config_of_weights import LLAMA_32_ROPE
from scratchlm.core.errors import TokenizerError
from scratchlm.core.files import MAX_TOKENIZER_BYTES, read_bytes
from scratchlm.tokenizers.families import LLAMA3_PATTERN

__all__ = [
    "LLAMA32_CONFIG_1B",
    "LLAMA32_CONFIG_3B",
    "ChatFormat",
    "FeedForward",
    "GroupedQueryAttention",
    "GroupedQueryAttentionFast",
    "KVCache",
    "Llama3Model",
    "Llama3ModelFast",
    "Llama3Tokenizer",
    "TransformerBlock",
    "TransformerBlockFast",
    "apply_rope",
    "assign",
    "clean_text",
    "compute_rope_params",
    "load_weights_into_llama",
]

NORM_EPS = 1e-5
FIRST_SPECIAL_ID, FIRST_RESERVED_ID, N_RESERVED = 128_000, 128_002, 256
LLAMA32_CONFIG_1B: dict[str, Any] = {  # published by Meta
    "vocab_size": 128_256,
    "context_length": 131_072,
    "emb_dim": 2048,
    "n_heads": 32,
    "n_layers": 16,
    "hidden_dim": 8192,
    "n_kv_groups": 8,
    "rope_base": 500_000.0,
    "dtype": torch.bfloat16,
    "rope_freq": dict(LLAMA_32_ROPE),
}
LLAMA32_CONFIG_3B = LLAMA32_CONFIG_1B | {"emb_dim": 3072, "n_heads": 24, "n_layers": 28}


class Llama3Model(LlamaFamilyModel):
    """Llama 3, built from the package's dictionary."""

    norm_eps = NORM_EPS
    draws = ("W_key", "W_value", "W_query", "out_proj")


class TransformerBlock(llama_family.TransformerBlock):
    """A block of Llama 3, built from the package's dictionary."""

    norm_eps = NORM_EPS


class GroupedQueryAttention(llama_family.GroupedQueryAttention):
    """Attention in which groups of query heads share keys and values."""

    def __init__(
        self, d_in: int, d_out: int, num_heads: int, num_kv_groups: int, dtype: torch.dtype | None = None
    ) -> None:
        with default_dtype(dtype):
            super().__init__(d_in, d_out, NO_LIMIT, 0.0, num_heads, n_kv_heads=num_kv_groups, out_bias=False)


# The package has fast variants of these; ours already use torch's kernels.
Llama3ModelFast, TransformerBlockFast = Llama3Model, TransformerBlock
GroupedQueryAttentionFast = GroupedQueryAttention


class Llama3Tokenizer:
    """Llama 3's tokenizer from Meta's `tokenizer.model`, run by tiktoken.

    Raises: TokenizerError for a file that is missing or of another kind.
    """

    def __init__(self, model_path: str | Path) -> None:
        names = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id")
        named = {f"<|{name}|>": FIRST_SPECIAL_ID + id_ for name, id_ in zip(names, (0, 1, 6, 7, 9))}
        reserved = sorted(set(range(N_RESERVED)) - {id_ - FIRST_RESERVED_ID for id_ in named.values()})
        self.special = named | {f"<|reserved_{i}|>": FIRST_RESERVED_ID + i for i in reserved}
        self.model = tiktoken.Encoding(
            name=Path(model_path).name,
            pat_str=LLAMA3_PATTERN,
            mergeable_ranks=_read_ranks(Path(model_path)),
            special_tokens=self.special,
        )

    def encode(
        self, text: str, bos: bool = False, eos: bool = False, allowed_special: Collection[str] | None = None
    ) -> list[int]:
        """Ids of the text, optionally with begin and end tokens; special tokens that are not allowed are plain text."""
        ids = self.model.encode(text, allowed_special=set(allowed_special or ()), disallowed_special=())
        begin = [self.special["<|begin_of_text|>"]] if bos else []
        return begin + ids + ([self.special["<|end_of_text|>"]] if eos else [])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids."""
        return str(self.model.decode(list(ids)))


class ChatFormat:
    """Encode a question in Llama 3's chat format."""

    def __init__(
        self, tokenizer: Llama3Tokenizer, *, default_system: str = "You are a helpful assistant."
    ) -> None:
        self.tok = tokenizer
        self.default_system = default_system

    def encode(
        self,
        user_message: str,
        system_message: str | None = None,
        allowed_special: Collection[str] | None = None,
    ) -> list[int]:
        """Ids of everything up to the assistant's answer."""
        system = self.default_system if system_message is None else system_message
        end = [self.tok.special["<|eot_id|>"]]
        return [
            self.tok.special["<|begin_of_text|>"],
            *self._header("system"), *self.tok.encode(system, allowed_special=allowed_special), *end,
            *self._header("user"), *self.tok.encode(user_message), *end,
            *self._header("assistant"),
        ]  # fmt: skip

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids."""
        return self.tok.decode(ids)

    def _header(self, role: str) -> list[int]:
        start, end = self.tok.special["<|start_header_id|>"], self.tok.special["<|end_header_id|>"]
        return [start, *self.tok.encode(role), end, *self.tok.encode("\n\n")]


def clean_text(text: str, header_end: str = "assistant<|end_header_id|>\n\n") -> str:
    """The assistant's answer: the text after its header, or the whole text without one."""
    _, header, answer = text.partition(header_end)
    return answer.strip() if header else text


def _read_ranks(path: Path) -> dict[bytes, int]:
    lines = read_bytes(path, max_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError).splitlines()
    try:
        pairs = [line.split() for line in lines if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
        for byte in range(256):
            ranks[bytes([byte])]
    except (ValueError, KeyError) as cause:
        raise TokenizerError(
            f"{path} is not Llama's tokenizer.model, which has a token and its rank on each line and every byte among "
            f"the tokens ({cause}); check the path."
        ) from cause
    numbers = set(ranks.values())
    if len(numbers) < len(pairs) or min(numbers) < 0 or max(numbers) >= FIRST_SPECIAL_ID:
        raise TokenizerError(
            f"{path} must have different ranks from 0 to {FIRST_SPECIAL_ID - 1}; use another copy."
        )
    return ranks
