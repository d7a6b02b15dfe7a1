"""The configuration of a GPT: its size and the variants it uses."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError

DROP_RATES = ("drop_rate_emb", "drop_rate_attn", "drop_rate_shortcut")  # each for one place in the model
TYPO_SIMILARITY = 0.8  # n_head is 0.92 similar to n_heads, kv_window_size at most 0.6 to any field
WIDENING = 4  # GPT-2: the feed-forward network is four times as wide as the residual stream

AttentionKind = Literal["sdpa", "manual"]
InitKind = Literal["torch", "gpt2"]
KernelKind = Literal["torch", "manual"]
NormKind = Literal["layer", "rms"]
PositionKind = Literal["learned", "rotary"]
FeedForwardKind = Literal["gelu", "gelu_exact", "swiglu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """Llama 3's scaling of rotary positions to longer contexts than in its first training.

    Raises: ConfigError for a factor that is not positive, or a high_freq_factor not above low_freq_factor.
    Source: the published config of Llama 3.1 (`rope_type: llama3`).
    """

    factor: float = 8.0  # low frequencies are divided by this
    low_freq_factor: float = 1.0  # wavelengths above original_context_length / this are scaled in full
    high_freq_factor: float = 4.0  # wavelengths below original_context_length / this are unchanged
    original_context_length: int = 8192  # context length in tokens of the first training

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor", "high_freq_factor"):
            _check_positive(f"rope_scaling.{name}", getattr(self, name))
        _check_count("rope_scaling.original_context_length", self.original_context_length)
        if self.high_freq_factor <= self.low_freq_factor:
            raise ConfigError(
                f"rope_scaling.high_freq_factor must be above low_freq_factor, got {self.high_freq_factor} "
                f"and {self.low_freq_factor}; Llama 3 has 4 and 1."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig:
    """The size and the variants of a GPT. A misspelt field is a TypeError, a bad value a ConfigError.

    The defaults are those of GPT-2's smallest model in the book, so the book's dictionary can be used
    directly. The fields from `norm` on give models of the Llama family.

    Raises: ConfigError naming the field, its value and the values that are allowed.
    Example:
        >>> GPTConfig(emb_dim=128, n_heads=4, n_layers=2).head_dim
        32
    """

    vocab_size: int = 50257  # number of token ids; GPT-2's byte-level BPE has 50,257
    context_length: int = 1024  # maximum number of tokens the model reads at once
    emb_dim: int = 768  # width of the residual stream
    n_heads: int = 12  # attention heads per block; must divide emb_dim
    n_layers: int = 12  # transformer blocks
    drop_rate: float = 0.1  # share of activations that dropout zeroes during training
    drop_rate_emb: float | None = None  # dropout of the embeddings; None = drop_rate
    drop_rate_attn: float | None = None  # dropout of the attention weights; None = drop_rate
    drop_rate_shortcut: float | None = None  # dropout of what the residual stream gets; None = drop_rate
    qkv_bias: bool = False  # a bias on queries, keys and values; GPT-2's published weights have one
    tie_embeddings: bool = False  # one matrix for the token embedding and the output head; use init="gpt2"
    init: InitKind = "torch"  # "torch": torch's defaults, as in the book; "gpt2": small normal weights
    attention: AttentionKind = "sdpa"  # "sdpa": torch's fused attention; "manual": written out
    kernels: KernelKind = "torch"  # the same choice for LayerNorm and GELU; the results agree
    norm: NormKind = "layer"  # "rms": RMSNorm, as in Llama
    norm_eps: float = 1e-5  # avoids a division by zero for a constant vector
    positions: PositionKind = "learned"  # "rotary": queries and keys are rotated, as in Llama
    rope_base: float = 10000.0  # rotary: the longest wavelength is about 2 pi times as many tokens
    rope_scaling: RopeScaling | None = None  # rotary: Llama 3's stretching for long texts
    feed_forward: FeedForwardKind = "gelu"  # tanh form, as GPT-2; "gelu_exact"; "swiglu": gated, as Llama
    ff_dim: int | None = None  # width of the feed-forward network; None = 4 * emb_dim
    n_kv_heads: int | None = None  # heads of keys and values, shared by groups of queries; None = n_heads
    head_size: int | None = None  # width of one head; None = emb_dim / n_heads
    qk_norm: bool = False  # an RMSNorm on every head's queries and keys, as in Qwen 3
    linear_bias: bool = True  # a bias on attention's output and in the feed-forward network
    is_causal: bool = True  # False: tokens attend to the future too; for classifiers, which do not generate

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
            _check_count(name, getattr(self, name))
        for name in ("ff_dim", "n_kv_heads", "head_size"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        for name in ("norm_eps", "rope_base"):
            _check_positive(name, getattr(self, name))
        _check_share("drop_rate", self.drop_rate)
        for name in DROP_RATES:
            _check_share(name, self.drop_rate_of(name))
        for name in ("qkv_bias", "tie_embeddings", "qk_norm", "linear_bias", "is_causal"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, got {getattr(self, name)!r}; choose one.")
        for name, kind in _CHOICES.items():
            choices = typing.get_args(kind)
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}; choose one of them."
                )
        self._check_heads()

    def _check_heads(self) -> None:
        if self.head_size is None and self.emb_dim % self.n_heads != 0:
            raise ConfigError(
                f"emb_dim must split evenly into heads, got emb_dim={self.emb_dim} and "
                f"n_heads={self.n_heads}; choose n_heads among the divisors of {self.emb_dim}."
            )
        if self.n_heads % (self.n_kv_heads or self.n_heads) != 0:
            raise ConfigError(
                f"n_heads must split evenly into groups, got n_heads={self.n_heads} and "
                f"n_kv_heads={self.n_kv_heads}; choose n_kv_heads among the divisors of {self.n_heads}."
            )
        if self.positions == "rotary" and self.head_dim % 2 != 0:
            raise ConfigError(
                f"rotary positions need an even head size, got {self.head_dim}; change emb_dim or n_heads."
            )
        if self.positions == "learned" and self.rope_scaling is not None:
            raise ConfigError(
                'rope_scaling needs positions="rotary", got positions="learned"; leave one of them out.'
            )

    def drop_rate_of(self, name: str) -> float:
        """The dropout rate at one place in the model, named as in DROP_RATES."""
        own: float | None = getattr(self, name)
        return self.drop_rate if own is None else own

    @property
    def has_dropout(self) -> bool:
        """Whether training uses any dropout."""
        return any(self.drop_rate_of(name) > 0 for name in DROP_RATES)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.head_size or self.emb_dim // self.n_heads

    @property
    def feed_forward_dim(self) -> int:
        """Width of the feed-forward network."""
        return self.ff_dim or WIDENING * self.emb_dim


_CHOICES = {
    "init": InitKind,
    "attention": AttentionKind,
    "kernels": KernelKind,
    "norm": NormKind,
    "positions": PositionKind,
    "feed_forward": FeedForwardKind,
}


def as_config(cfg: GPTConfig | Mapping[str, Any], *, only: Collection[str] | None = None) -> GPTConfig:
    """Return a config unchanged, or build one from a dictionary such as the book's.

    As in the book, a dictionary may have keys for other purposes, such as `kv_window_size`; they are ignored,
    and missing fields take the defaults. `only` names the fields that a single layer needs.

    Raises: ConfigError for a key that is a misspelt field, and for a bad value.
    """
    if isinstance(cfg, GPTConfig):
        return cfg
    fields = {field.name for field in dataclasses.fields(GPTConfig)}
    for name in cfg.keys() - fields:
        close = difflib.get_close_matches(name, fields - cfg.keys(), n=1, cutoff=TYPO_SIMILARITY)
        if close:
            raise ConfigError(f"model has no setting {name!r}; did you mean {close[0]!r}?")
    values = {name: cfg[name] for name in cfg if name in (fields if only is None else only)}
    if only is not None and "n_heads" not in only:
        values["n_heads"] = 1  # a layer without heads accepts any width
    return from_dict(GPTConfig, values, where="model")


def named_config(name: str, **changes: Any) -> GPTConfig:
    """Return one of `CONFIGS`, with some fields changed.

    Raises: ConfigError for an unknown name, with the nearest known one.
    Example:
        >>> named_config("gpt2-medium", qkv_bias=True).n_layers
        24
    """
    if name not in CONFIGS:
        raise ConfigError(f"a model size must be a known name, got {name!r}; {nearest(name, CONFIGS)}")
    return dataclasses.replace(CONFIGS[name], **changes)


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}; change it.")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigError(f"{name} must be a positive number, got {value!r}; change it.")


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, got {value!r}; 0.1 is usual.")
    if not 0 <= value < 1:
        raise ConfigError(f"{name} must be at least 0 and below 1, got {value}; 0.1 is usual.")


CONFIGS: Mapping[str, GPTConfig] = MappingProxyType(
    {
        # for laptops: a few minutes of training; vocab_size follows the tokenizer
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
