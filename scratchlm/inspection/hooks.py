"""Hook points: read the values inside a model by name, without changing its code.

The names and shapes are those of TransformerLens, so that its documentation applies here too:
`blocks.0.hook_resid_pre` is the residual stream before the first block, `blocks.0.attn.hook_pattern` the attention
weights in it.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.model.block import TransformerBlock
from scratchlm.model.gpt import GPTModel
from scratchlm.model.layer_norm import LayerNorm
from scratchlm.model.rms_norm import RMSNorm
from scratchlm.model.swiglu import SwiGLU

Arguments = tuple[Any, ...]
Read = Callable[[Arguments, Tensor], Tensor]  # a module's arguments and its output -> the value
INPUT: Read = lambda args, output: args[0]  # noqa: E731
OUTPUT: Read = lambda args, output: output  # noqa: E731


class HookPoint(NamedTuple):
    """A place in the model whose value can be read."""

    module: nn.Module  # the module that has the value as input or output
    read: Read


def hook_points(model: GPTModel) -> dict[str, HookPoint]:
    """The hook points of a model, by name, in the order of the computation.

    Shapes: residual stream and outputs of sublayers (B, T, E), position embeddings (T, E) or (B, T, E), hook_scale
        (B, T, 1), queries, keys, values and hook_z (B, T, H, D), hook_pattern (B, H, T, T), mlp (B, T, F).
    Source: TransformerLens 2.18, `HookedTransformer.hook_dict`.
    """
    points = {"hook_embed": HookPoint(model.tok_emb, OUTPUT)}
    if model.config.positions == "learned":
        points["hook_pos_embed"] = HookPoint(model.pos_emb, OUTPUT)
    for layer, block in enumerate(model.trf_blocks):
        assert isinstance(block, TransformerBlock)
        of_block = _attention_points(block) | _feed_forward_points(block)
        points |= {f"blocks.{layer}.{name}": point for name, point in of_block.items()}
    return points | _norm_points("ln_final", model.final_norm)


def layer_names(model: GPTModel, point: str) -> list[str]:
    """The names of a hook point such as `attn.hook_pattern`, one for each layer."""
    return [f"blocks.{layer}.{point}" for layer in range(model.config.n_layers)]


def _attention_points(block: TransformerBlock) -> dict[str, HookPoint]:
    attention = block.att

    def per_head(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], -1, attention.head_dim)  # (B, T, H, D)

    return {
        "hook_resid_pre": HookPoint(block, INPUT),
        **_norm_points("ln1", block.norm1),
        "attn.hook_q": HookPoint(attention.W_query, lambda args, output: per_head(output)),
        "attn.hook_k": HookPoint(attention.W_key, lambda args, output: per_head(output)),
        "attn.hook_v": HookPoint(attention.W_value, lambda args, output: per_head(output)),
        # Fused kernels never store the weights; the formula gives them, whichever implementation the model uses.
        "attn.hook_pattern": HookPoint(attention, lambda args, output: attention.attention_weights(*args)),
        "attn.hook_z": HookPoint(attention.out_proj, lambda args, output: per_head(args[0])),
        "hook_attn_out": HookPoint(attention, OUTPUT),
    }


def _feed_forward_points(block: TransformerBlock) -> dict[str, HookPoint]:
    points = {"hook_resid_mid": HookPoint(block.norm2, INPUT), **_norm_points("ln2", block.norm2)}
    if isinstance(block.ff, SwiGLU):
        points["mlp.hook_pre"] = HookPoint(block.ff.gate, OUTPUT)
        points["mlp.hook_pre_linear"] = HookPoint(block.ff.up, OUTPUT)
        points["mlp.hook_post"] = HookPoint(block.ff.down, INPUT)
    else:
        points["mlp.hook_pre"] = HookPoint(block.ff.layers[0], OUTPUT)
        points["mlp.hook_post"] = HookPoint(block.ff.layers[2], INPUT)
    points["hook_mlp_out"] = HookPoint(block.ff, OUTPUT)
    points["hook_resid_post"] = HookPoint(block, OUTPUT)
    return points


def _norm_points(name: str, norm: LayerNorm | RMSNorm) -> dict[str, HookPoint]:
    scale: Read = lambda args, output: norm_scale(norm, args[0])  # noqa: E731
    if isinstance(norm, LayerNorm):
        normalized = OUTPUT
    else:  # TransformerLens reads it before the trainable scale
        normalized = lambda args, output: args[0] / norm_scale(norm, args[0])  # noqa: E731
    return {
        f"{name}.hook_scale": HookPoint(norm, scale),
        f"{name}.hook_normalized": HookPoint(norm, normalized),
    }


@contextmanager
def recorded(model: GPTModel, names: Collection[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Record the values at hook points in the forward passes inside the block; None records all of them.

    Outside the block the model has no hooks and computes as if this file did not exist. The tensors are those of the
    pass itself: they have gradients where it has, and a second pass replaces them.

    Raises: ConfigError for a name that the model does not have, with the nearest known one.
    Example:
        >>> import torch
        >>> from scratchlm.model import GPTConfig
        >>> model = GPTModel(GPTConfig(vocab_size=10, context_length=8, emb_dim=4, n_heads=2, n_layers=1)).eval()
        >>> with torch.no_grad(), recorded(model, ["blocks.0.attn.hook_pattern"]) as values:
        ...     logits = model(torch.tensor([[1, 2, 3]]))
        >>> values["blocks.0.attn.hook_pattern"].shape
        torch.Size([1, 2, 3, 3])
    """
    points = hook_points(model)
    for name in names or ():
        if name not in points:
            raise ConfigError(f"the model has no hook point {name!r}; {nearest(name, points)}")
    values: dict[str, Tensor] = {}

    def record(name: str, _module: nn.Module, args: Arguments, output: Tensor) -> None:
        values[name] = points[name].read(args, output)

    chosen = points if names is None else dict.fromkeys(names)
    handles = [points[name].module.register_forward_hook(partial(record, name)) for name in chosen]
    try:
        yield values
    finally:
        for handle in handles:
            handle.remove()


def norm_scale(norm: LayerNorm | RMSNorm, x: Tensor) -> Tensor:
    """The number by which a normalisation divides each token's vector.

    Shapes: x (..., E) -> (..., 1).
    """
    centred = x - x.mean(dim=-1, keepdim=True) if isinstance(norm, LayerNorm) else x
    scale: Tensor = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    return scale
