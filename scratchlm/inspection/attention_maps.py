"""Attention maps: the attention weights of one forward pass, for every layer and head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scratchlm.model.attention import MultiHeadAttention
from scratchlm.model.gpt import GPTModel
from scratchlm.model.modes import evaluation_mode


def attention_maps(model: GPTModel, ids: Tensor, *, attention_mask: Tensor | None = None) -> Tensor:
    """Compute attention weights: `maps[layer, row, head, i, j]` is the weight of token j for token i.

    Fused kernels never store the weights, so they are computed from the input of each attention layer by the formula,
    whichever implementation the model uses.

    Shapes: ids (B, T), attention_mask (B, T) -> (L, B, H, T, T) for L layers; the last dimension sums to 1.
    Raises: DataError as the model does.
    """
    maps: list[Tensor] = []

    def record(attention: torch.nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(attention, MultiHeadAttention)
        maps.append(attention.attention_weights(*args))

    layers = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        with evaluation_mode(model):
            model.hidden_states(ids, attention_mask=attention_mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(maps)
