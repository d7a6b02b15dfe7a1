"""Qwen 3 (dense) under the names of the book's package: the model, its parts, weights and tokenizer."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from scratchlm.book import llama_family
from scratchlm.book.downloads import download_from_huggingface
from scratchlm.book.kv_cache.utils import KVCache
from scratchlm.book.llama_family import (
    NO_LIMIT,
    FeedForward,
    LlamaFamilyModel,
    apply_rope,
    compute_rope_params,
    default_dtype,
    no_experts,
)
from scratchlm.book.llama_family import load_weights as load_weights_into_qwen
from scratchlm.core.errors import ConfigError
from scratchlm.model import rms_norm
from scratchlm.tokenizers.files import load_tokenizer
from scratchlm.tokenizers.special_tokens import END_OF_TEXT

__all__ = [
    "QWEN3_CONFIG_1_7B",
    "QWEN3_CONFIG_4B",
    "QWEN3_CONFIG_8B",
    "QWEN3_CONFIG_14B",
    "QWEN3_CONFIG_32B",
    "QWEN_CONFIG_06_B",
    "FeedForward",
    "GroupedQueryAttention",
    "KVCache",
    "MoEFeedForward",
    "Qwen3Model",
    "Qwen3Tokenizer",
    "RMSNorm",
    "TransformerBlock",
    "apply_rope",
    "compute_rope_params",
    "download_from_huggingface",
    "load_weights_into_qwen",
]

NORM_EPS = 1e-6
QWEN_CONFIG_06_B: dict[str, Any] = {  # published by Alibaba
    "vocab_size": 151_936,
    "context_length": 40_960,
    "emb_dim": 1024,
    "n_heads": 16,
    "n_layers": 28,
    "hidden_dim": 3072,
    "head_dim": 128,
    "qk_norm": True,
    "n_kv_groups": 8,
    "rope_base": 1_000_000.0,
    "dtype": torch.bfloat16,
}
QWEN3_CONFIG_1_7B, QWEN3_CONFIG_4B, QWEN3_CONFIG_8B, QWEN3_CONFIG_14B, QWEN3_CONFIG_32B = (
    QWEN_CONFIG_06_B
    | {"emb_dim": emb_dim, "n_heads": n_heads, "n_layers": n_layers, "hidden_dim": hidden_dim}
    for emb_dim, n_heads, n_layers, hidden_dim in (
        (2048, 16, 28, 6144),
        (2560, 32, 36, 9728),
        (4096, 32, 36, 12288),
        (5120, 40, 40, 17408),
        (5120, 64, 64, 25600),
    )
)


class Qwen3Model(LlamaFamilyModel):
    """Qwen 3, built from the package's dictionary."""

    norm_eps = NORM_EPS
    draws = ("W_query", "W_key", "W_value", "out_proj")


class TransformerBlock(llama_family.TransformerBlock):
    """A block of Qwen 3, built from the package's dictionary."""

    norm_eps = NORM_EPS


class GroupedQueryAttention(llama_family.GroupedQueryAttention):
    """Attention in which groups of query heads share keys and values, with optional RMSNorm on queries and keys."""

    def __init__(
        self,
        d_in: int,
        num_heads: int,
        num_kv_groups: int,
        head_dim: int | None = None,
        qk_norm: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        d_out = d_in if head_dim is None else num_heads * head_dim
        with default_dtype(dtype):
            super().__init__(
                d_in, d_out, NO_LIMIT, 0.0, num_heads,
                n_kv_heads=num_kv_groups, out_dim=d_in, out_bias=False, qk_norm_eps=NORM_EPS if qk_norm else None,
            )  # fmt: skip


class RMSNorm(rms_norm.RMSNorm):
    """RMSNorm with the package's arguments; torch's kernel always computes in float32.

    Raises: ConfigError for a bias, which Qwen 3 does not have.
    """

    def __init__(
        self, emb_dim: int, eps: float = NORM_EPS, bias: bool = False, qwen3_compatible: bool = True
    ) -> None:
        if bias:
            raise ConfigError("Qwen 3's RMSNorm has no bias, got bias=True; leave it out.")
        super().__init__(emb_dim, eps=eps)


def MoEFeedForward(cfg: Mapping[str, Any]) -> FeedForward:  # noqa: N802 - the package's name
    """Raise an error, since a mixture of experts is not supported.

    Raises: ConfigError always.
    """
    raise no_experts(cfg.get("num_experts", 0))


class Qwen3Tokenizer:
    """Qwen's tokenizer from its `tokenizer.json`, with Qwen's chat template.

    A missing file is downloaded from `repo_id` on Hugging Face, if given.
    Raises: TokenizerError for a missing or damaged file; DownloadError when the download fails.
    """

    def __init__(
        self,
        tokenizer_file_path: str | Path = "tokenizer.json",
        repo_id: str | None = None,
        apply_chat_template: bool = True,
        add_generation_prompt: bool = False,
        add_thinking: bool = False,
    ) -> None:
        path = Path(tokenizer_file_path)
        if not path.is_file() and repo_id:
            download_from_huggingface(repo_id, path.name, path.parent)
        self.apply_chat_template = apply_chat_template
        self.add_generation_prompt = add_generation_prompt
        self.add_thinking = add_thinking
        self._tok = load_tokenizer(path)
        is_chat = bool(repo_id) and "Base" not in str(repo_id)
        special = self._tok.special_tokens
        self.pad_token_id = special.get(END_OF_TEXT)
        self.eos_token_id = special.get("<|im_end|>", self.pad_token_id) if is_chat else self.pad_token_id

    def encode(self, text: str, chat_wrapped: bool | None = None) -> list[int]:
        """Ids of the text, in the chat template if requested; a lone special token becomes its id."""
        is_wrapped = self.apply_chat_template if chat_wrapped is None else chat_wrapped
        if text.strip() in self._tok.special_tokens:
            text = text.strip()
        elif is_wrapped:
            text = self._chat(text)
        return self._tok.encode(text, allowed_special="all")

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens included."""
        return self._tok.decode(ids)

    def _chat(self, text: str) -> str:
        chat = f"<|im_start|>user\n{text}<|im_end|>\n"
        if not self.add_generation_prompt:
            return chat
        # Without thinking, the answer follows an empty <think> block, as in Qwen's own template.
        return f"{chat}<|im_start|>assistant\n" + ("" if self.add_thinking else "<think>\n\n</think>\n\n")
