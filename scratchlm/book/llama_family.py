"""The one implementation behind Llama 3 and Qwen 3 under the names of the book's package.

Each of the two modules adds its epsilon, its order of random draws, its published configs and its tokenizer.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scratchlm.book import ch04
from scratchlm.checkpoints.config_of_weights import BOOK_NAMES
from scratchlm.checkpoints.names import BOOK_LLAMA, LLAMA, to_ours
from scratchlm.core.errors import ConfigError
from scratchlm.model import attention, block, gpt, swiglu
from scratchlm.model.attention_context import AttentionContext
from scratchlm.model.config import GPTConfig, as_config
from scratchlm.model.empty import empty_weights
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.rotary import rotate, rotation

SIZES = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "hidden_dim", "n_kv_groups")
NEEDED = (*SIZES, "rope_base")  # keys of the package's dictionary
KNOWN = (*NEEDED, "rope_freq", "head_dim", "qk_norm")
FAMILY = {
    "drop_rate": 0.0,
    "qkv_bias": False,
    "linear_bias": False,
    "norm": "rms",
    "positions": "rotary",
    "feed_forward": "swiglu",
}
NO_LIMIT = sys.maxsize  # tokens: a single layer has no context length


class LlamaFamilyModel(ch04.GPTModel):
    """A GPT of the Llama family, built from the package's dictionary.

    A seed gives the package's weights, its files load under its names, and `dtype` may be any torch dtype.

    Shapes: in_idx (B, T) -> logits (B, T, V).
    Raises: ConfigError for a missing key, and for a mixture of experts.
    """

    norm_eps: float
    draws: Sequence[str]  # the attention's matrices in the order of their random initialisation

    def __init__(self, cfg: GPTConfig | Mapping[str, Any]) -> None:
        dtype = cfg.get("dtype") if isinstance(cfg, Mapping) else None
        with empty_weights(), default_dtype(dtype):
            super().__init__(family_config(cfg, norm_eps=self.norm_eps))
        self.cfg = cfg if isinstance(cfg, Mapping) else self.cfg
        self.to_empty(device=torch.get_default_device())
        self._draw_weights()
        self.register_load_state_dict_pre_hook(_rename)  # type: ignore[no-untyped-call]

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, RMSNorm):
                nn.init.ones_(module.scale)
        self.tok_emb.reset_parameters()
        for part in self.trf_blocks:
            for name in (*(f"att.{name}" for name in self.draws), "ff.gate", "ff.up", "ff.down"):
                nn.Linear.reset_parameters(part.get_submodule(name))  # type: ignore[arg-type]
        self.out_head.reset_parameters()


class GroupedQueryAttention(attention.MultiHeadAttention):
    """Grouped-query attention with the package's `forward(x, mask, cos, sin)`, or without mask as in its fast variant.

    Shapes: x (B, T, d_in), mask (T, T) with True where attention is not allowed, cos and sin (at least T, D).
    """

    def forward(self, x: Tensor, *mask_cos_sin: Tensor) -> Tensor:  # type: ignore[override]
        """Compute causal attention for every token."""
        return super().forward(x, _context(x, mask_cos_sin))


class TransformerBlock(block.TransformerBlock):
    """A transformer block with the package's `forward(x, mask, cos, sin)`, or without a mask."""

    norm_eps: float

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        with default_dtype(cfg.get("dtype")):
            super().__init__(family_config(cfg, norm_eps=self.norm_eps))

    def forward(self, x: Tensor, *mask_cos_sin: Tensor) -> Tensor:  # type: ignore[override]
        """Apply attention, then the feed-forward network."""
        return super().forward(x, _context(x, mask_cos_sin))


class FeedForward(swiglu.SwiGLU):
    """SwiGLU with the package's names `fc1`, `fc2` and `fc3`."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        with default_dtype(cfg.get("dtype")):
            super().__init__(_translated(cfg, needed=("emb_dim", "hidden_dim")))

    fc1 = property(lambda self: self.gate)
    fc2 = property(lambda self: self.up)
    fc3 = property(lambda self: self.down)


def family_config(cfg: GPTConfig | Mapping[str, Any], *, norm_eps: float) -> GPTConfig:
    """Convert the package's dictionary to a GPTConfig.

    Raises: ConfigError for a missing key, and for a mixture of experts.
    """
    if isinstance(cfg, GPTConfig):
        return cfg
    if cfg.get("num_experts"):
        raise no_experts(cfg["num_experts"])
    return as_config(_translated(cfg, needed=NEEDED) | FAMILY | {"norm_eps": norm_eps})


def _translated(cfg: Mapping[str, Any], *, needed: Iterable[str]) -> dict[str, Any]:
    missing = [name for name in needed if name not in cfg]
    if missing:
        raise ConfigError(
            f"the dictionary lacks {', '.join(missing)}, its keys are {', '.join(cfg)}; add them."
        )
    return {BOOK_NAMES.get(name, name): cfg[name] for name in KNOWN if cfg.get(name) is not None}


def no_experts(n_experts: int) -> ConfigError:
    """The error for a mixture of experts, which is not supported."""
    return ConfigError(f"the model must be dense, got num_experts={n_experts}; use a config without experts.")


def compute_rope_params(
    head_dim: int,
    theta_base: float = 10_000,
    context_length: int = 4096,
    freq_config: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position.

    Shapes: -> two of (context_length, head_dim).
    """
    positions = {"positions": "rotary", "rope_base": theta_base, "rope_scaling": freq_config}
    config = as_config({"emb_dim": head_dim, "n_heads": 1, **positions})
    cos, sin = rotation(config, torch.arange(context_length))
    return cos.to(dtype), sin.to(dtype)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys by their positions, starting at 0.

    Shapes: x (B, H, T, D), cos and sin (at least T, D) -> (B, H, T, D).
    """
    n_tokens = x.shape[2]
    return rotate(x, (cos[:n_tokens], sin[:n_tokens]))


def load_weights(model: gpt.GPTModel, param_config: Mapping[str, Any], params: Mapping[str, Tensor]) -> None:  # noqa: ARG001
    """Copy weights with Hugging Face's names into a model; without an output head in them, weights are tied.

    Raises: CheckpointError listing every weight that is missing, unexpected or of another shape.
    """
    is_tied = "lm_head.weight" not in params
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if is_tied:
        params = {**params, "lm_head.weight": params["model.embed_tokens.weight"]}
    model.load_state_dict(to_ours(LLAMA, params, shapes, where="params"))
    if is_tied:
        model.out_head.weight = model.tok_emb.weight
        sys.stdout.write("Model uses weight tying.\n")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Create parameters with this dtype inside the block; None keeps torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(before if dtype is None else dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _context(x: Tensor, mask_cos_sin: Sequence[Tensor]) -> AttentionContext:
    *mask, cos, sin = mask_cos_sin
    n = x.shape[1]
    return AttentionContext(mask=~mask[0][..., :n, :n] if mask else None, cos_sin=(cos[:n], sin[:n]))


def _rename(model: gpt.GPTModel, state_dict: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """Rename the package's parameters to ours, and drop its buffers, which can be recomputed."""
    for row in BOOK_LLAMA.rows(model.config.n_layers):
        if prefix + row.theirs in state_dict:
            state_dict[prefix + row.ours[0]] = state_dict.pop(prefix + row.theirs)
    for name in [name for name in state_dict if BOOK_LLAMA.ignored.fullmatch(name)]:
        del state_dict[name]
