"""Map our models and weights to llama.cpp's architectures (gpt2, llama, qwen2, qwen3) and tensor names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.model.config import GPTConfig

Change = Literal["as is", "interleave queries", "interleave keys"]
POSITIONS = "position_embd.weight"  # never quantized
ROPE_FACTORS = "rope_freqs.weight"  # divisors of the rotation of each pair of coordinates; not trained


@dataclass(frozen=True)
class Weight:
    """A tensor of llama.cpp and our tensors that it contains, stacked along the rows."""

    name: str
    ours: tuple[str, ...]
    change: Change = "as is"

    def gather(self, state: Mapping[str, Tensor], config: GPTConfig) -> Tensor:
        """Build the tensor to write; a bias that our model lacks becomes zero."""
        # Each (n, E), or (n,).
        found = [state[name] if name in state else _no_bias(name, state) for name in self.ours]
        whole = found[0] if len(found) == 1 else torch.cat(found)
        return self._reorder(whole, config, inverse=False)

    def scatter(self, tensor: Tensor, config: GPTConfig) -> dict[str, Tensor]:
        """Split llama.cpp's tensor into ours; the inverse of `gather`."""
        n = len(self.ours)
        pieces = self._reorder(tensor, config, inverse=True).chunk(n)
        return {name: piece.clone() if n > 1 else piece for name, piece in zip(self.ours, pieces)}

    def _reorder(self, tensor: Tensor, config: GPTConfig, *, inverse: bool) -> Tensor:
        """Reorder rows: llama.cpp's llama rotates the pairs (2i, 2i + 1) where we rotate (i, i + D/2)."""
        if self.change == "as is":
            return tensor
        is_query = self.change == "interleave queries"
        n_heads = config.n_heads if is_query else config.n_kv_heads or config.n_heads
        halves = (config.head_dim // 2, 2) if inverse else (2, config.head_dim // 2)
        return tensor.reshape(n_heads, *halves, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def architecture(config: GPTConfig) -> str:
    """llama.cpp's name for the model's architecture.

    Raises: ConfigError naming the settings, when llama.cpp has no such architecture.
    """
    if not config.is_causal:
        raise ConfigError(
            "GPT-2 and Llama are causal in other programs, got a model with is_causal=False; keep it as a model folder."
        )
    is_gpt2 = (
        config.norm == "layer"
        and config.positions == "learned"
        and config.feed_forward == "gelu"
        and (config.n_kv_heads or config.n_heads) == config.n_heads
        and config.head_dim * config.n_heads == config.emb_dim
        and config.linear_bias
        and not config.qk_norm
    )
    is_llama = (
        config.norm == "rms"
        and config.positions == "rotary"
        and config.feed_forward == "swiglu"
        and not config.linear_bias
        and not (config.qk_norm and config.qkv_bias)
    )
    if is_gpt2:
        return "gpt2"
    name = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    if not is_llama or (name != "llama" and config.rope_scaling is not None):
        raise ConfigError(
            "GGUF needs a model that llama.cpp knows: GPT-2 (layer, learned, gelu, biases) or the Llama family (rms, "
            f"rotary, swiglu, linear_bias off; rope_scaling for Llama alone), got norm={config.norm}, positions="
            f"{config.positions}, feed_forward={config.feed_forward}, n_heads={config.n_heads}, n_kv_heads="
            f"{config.n_kv_heads}, head_size={config.head_size}, qkv_bias={config.qkv_bias}, qk_norm="
            f"{config.qk_norm}, linear_bias={config.linear_bias}, rope_scaling={config.rope_scaling}; convert it to "
            "another format."
        )
    return name


def weights(config: GPTConfig) -> Iterator[Weight]:
    """llama.cpp's tensors for a model, in its order, without `ROPE_FACTORS`, which we do not store."""
    kind = architecture(config)
    yield Weight("token_embd.weight", ("tok_emb.weight",))
    if kind == "gpt2":
        yield Weight(POSITIONS, ("pos_emb.weight",))
    for i in range(config.n_layers):
        of_block = _gpt2_block() if kind == "gpt2" else _llama_block(kind)
        for weight in of_block:
            ours = tuple(f"trf_blocks.{i}.{name}" for name in weight.ours)
            yield Weight(f"blk.{i}.{weight.name}", ours, weight.change)
    yield Weight("output_norm.weight", ("final_norm.scale",))
    if kind == "gpt2":
        yield Weight("output_norm.bias", ("final_norm.shift",))
    if not config.tie_embeddings:
        yield Weight("output.weight", ("out_head.weight",))


def rope_factors(config: GPTConfig) -> Tensor:
    """Llama 3's RoPE scaling as llama.cpp stores it: the divisor of each pair's angle.

    Shapes: -> (D/2,).
    """
    scaling = config.rope_scaling
    assert scaling is not None
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    wavelengths = 2 * torch.pi * config.rope_base**exponents  # tokens for a full rotation
    turns = float(scaling.original_context_length) / wavelengths
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)  # 0: divided by factor, 1: unchanged
    factors: Tensor = 1 / ((1 - kept) / scaling.factor + kept)
    return factors.float()


def _gpt2_block() -> Iterator[Weight]:
    for theirs, ours in (("attn_norm", "norm1"), ("ffn_norm", "norm2")):
        yield Weight(f"{theirs}.weight", (f"{ours}.scale",))
        yield Weight(f"{theirs}.bias", (f"{ours}.shift",))
    for end in ("weight", "bias"):
        yield Weight(f"attn_qkv.{end}", tuple(f"att.W_{part}.{end}" for part in ("query", "key", "value")))
        yield Weight(f"attn_output.{end}", (f"att.out_proj.{end}",))
        yield Weight(f"ffn_up.{end}", (f"ff.layers.0.{end}",))
        yield Weight(f"ffn_down.{end}", (f"ff.layers.2.{end}",))


def _llama_block(kind: str) -> Iterator[Weight]:
    is_llama = kind == "llama"
    yield Weight("attn_norm.weight", ("norm1.scale",))
    yield Weight("attn_q.weight", ("att.W_query.weight",), "interleave queries" if is_llama else "as is")
    yield Weight("attn_k.weight", ("att.W_key.weight",), "interleave keys" if is_llama else "as is")
    yield Weight("attn_v.weight", ("att.W_value.weight",))
    yield Weight("attn_output.weight", ("att.out_proj.weight",))
    if kind == "qwen2":
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value")):
            yield Weight(f"attn_{theirs}.bias", (f"att.W_{ours}.bias",))
    if kind == "qwen3":
        yield Weight("attn_q_norm.weight", ("att.query_norm.scale",))
        yield Weight("attn_k_norm.weight", ("att.key_norm.scale",))
    yield Weight("ffn_norm.weight", ("norm2.scale",))
    for part in ("gate", "up", "down"):
        yield Weight(f"ffn_{part}.weight", (f"ff.{part}.weight",))


def _no_bias(name: str, state: Mapping[str, Tensor]) -> Tensor:
    return torch.zeros_like(state[f"{name.removesuffix('.bias')}.weight"][:, 0])
