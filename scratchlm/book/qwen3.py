"""Qwen 3 (dense) under the package's names: the model, its parts, its weights and tokenizer."""

from __future__ import annotations

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
    family_config,
    no_experts,
)
from scratchlm.book.llama_family import load_weights as load_weights_into_qwen
from scratchlm.core.errors import ConfigError
from scratchlm.model import rms_norm
from scratchlm.model.config import GPTConfig
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
    """Our GPT as Qwen 3, from the package's dictionary."""

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        super().__init__(cfg, norm_eps=NORM_EPS, draws=("W_query", "W_key", "W_value", "out_proj"))


class TransformerBlock(llama_family.TransformerBlock):
    """One block of Qwen 3, from the package's dictionary."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        with default_dtype(cfg.get("dtype")):
            super().__init__(family_config(cfg, norm_eps=NORM_EPS))


class GroupedQueryAttention(llama_family.GroupedQueryAttention):
    """Attention in which groups of queries share keys and values, whose heads may be normalised."""

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
    """Our RMSNorm with the package's arguments; torch's kernel always computes in float32.

    Raises: ConfigError for a bias, which no Qwen 3 has.
    """

    def __init__(
        self, emb_dim: int, eps: float = NORM_EPS, bias: bool = False, qwen3_compatible: bool = True
    ) -> None:
        if bias:
            raise ConfigError("an RMSNorm of Qwen 3 has no bias, got bias=True; leave it out.")
        super().__init__(emb_dim, eps=eps)


def MoEFeedForward(cfg: Mapping[str, Any]) -> FeedForward:  # noqa: N802 - the package's name
    """Refuse a mixture of experts, which our model is not.

    Raises: ConfigError always.
    """
    raise no_experts(cfg.get("num_experts", 0))


class Qwen3Tokenizer:
    """Our tokenizer of Qwen's `tokenizer.json`, which puts a question into Qwen's chat frame.

    A missing file is fetched from `repo_id` on Hugging Face when one is given.
    Raises: TokenizerError for a file that is missing or damaged; DownloadError when it cannot be fetched.
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
        """Ids of the text in the chat frame, where wanted; a special token alone is never framed."""
        is_wrapped = self.apply_chat_template if chat_wrapped is None else chat_wrapped
        if text.strip() in self._tok.special_tokens:
            text = text.strip()
        elif is_wrapped:
            text = self._framed(text)
        return self._tok.encode(text, allowed_special="all")

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens included."""
        return self._tok.decode(ids)

    def _framed(self, text: str) -> str:
        framed = f"<|im_start|>user\n{text}<|im_end|>\n"
        if not self.add_generation_prompt:
            return framed
        # Without thinking, the answer begins behind an empty thought, as Qwen's own template has it.
        return f"{framed}<|im_start|>assistant\n" + ("" if self.add_thinking else "<think>\n\n</think>\n\n")
