"""How large a GPT is, and which of its few variants it uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError

AttentionKind = Literal["sdpa", "manual"]
InitKind = Literal["torch", "gpt2"]
KernelKind = Literal["torch", "manual"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """The size of a GPT. A misspelt field is a TypeError, a bad value a ConfigError.

    The defaults are GPT-2's smallest model as the book builds it, so the book's dictionary fits as it is.

    Raises: ConfigError naming the field, its value and what would do.
    Example:
        >>> GPTConfig(emb_dim=128, n_heads=4, n_layers=2).head_dim
        32
    """

    vocab_size: int = 50257  # number of token ids; GPT-2's byte-level BPE has 50,257
    context_length: int = 1024  # most tokens the model reads at once
    emb_dim: int = 768  # width of the residual stream
    n_heads: int = 12  # attention heads per block; must divide emb_dim
    n_layers: int = 12  # transformer blocks
    drop_rate: float = 0.1  # share of activations that dropout zeroes while training
    qkv_bias: bool = False  # a bias on queries, keys and values; GPT-2's published weights have one
    tie_embeddings: bool = False  # one matrix reads tokens and predicts them; then take init="gpt2"
    init: InitKind = "torch"  # "torch": torch's defaults, as in the book; "gpt2": small normal weights
    attention: AttentionKind = "sdpa"  # "sdpa": torch's fused attention; "manual": written out
    kernels: KernelKind = "torch"  # the same choice for LayerNorm and GELU; the results agree

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}; change it.")
        if isinstance(self.drop_rate, bool) or not isinstance(self.drop_rate, (int, float)):
            raise ConfigError(f"drop_rate must be a number, got {self.drop_rate!r}; 0.1 is usual.")
        if not 0 <= self.drop_rate < 1:
            raise ConfigError(
                f"drop_rate must be at least 0 and below 1, got {self.drop_rate}; 0.1 is usual."
            )
        for name in ("qkv_bias", "tie_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, got {getattr(self, name)!r}; choose one.")
        _check_choice("init", self.init, ("torch", "gpt2"))
        _check_choice("attention", self.attention, ("sdpa", "manual"))
        _check_choice("kernels", self.kernels, ("torch", "manual"))
        if self.emb_dim % self.n_heads != 0:
            raise ConfigError(
                f"emb_dim must split evenly into heads, got emb_dim={self.emb_dim} and "
                f"n_heads={self.n_heads}; choose n_heads among the divisors of {self.emb_dim}."
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.emb_dim // self.n_heads


def as_config(cfg: GPTConfig | Mapping[str, Any]) -> GPTConfig:
    """The config itself, or one made from a dictionary such as the book's; missing fields take the defaults.

    Raises: ConfigError for an unknown key, with the nearest known one, and for a bad value.
    """
    return cfg if isinstance(cfg, GPTConfig) else from_dict(GPTConfig, cfg, where="model")


def named_config(name: str, **changes: Any) -> GPTConfig:
    """One of `CONFIGS`, with some fields changed.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> named_config("gpt2-medium", qkv_bias=True).n_layers
        24
    """
    if name not in CONFIGS:
        raise ConfigError(f"a model size must be a known name, got {name!r}; {nearest(name, CONFIGS)}")
    return dataclasses.replace(CONFIGS[name], **changes)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}; choose one of them.")


CONFIGS: Mapping[str, GPTConfig] = MappingProxyType(
    {
        # for laptops: a few minutes of training; vocab_size follows the tokenizer they are trained with
        "tiny": GPTConfig(
            vocab_size=2048, context_length=128, emb_dim=128, n_heads=4, n_layers=4,
            drop_rate=0.0, tie_embeddings=True, init="gpt2",
        ),
        "small": GPTConfig(
            vocab_size=4096, context_length=256, emb_dim=256, n_heads=8, n_layers=6,
            drop_rate=0.1, tie_embeddings=True, init="gpt2",
        ),
        # the four sizes of GPT-2: Radford et al. 2019, table 2
        "gpt2-small": GPTConfig(emb_dim=768, n_heads=12, n_layers=12),
        "gpt2-medium": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
        "gpt2-large": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
        "gpt2-xl": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
    }
)  # fmt: skip
