"""LoRA: leave the weights as they are, and learn a thin correction beside each of them.

A matrix of in x out numbers is corrected by A B, with A (in, R) and B (R, out). For GPT-2's small model and R
16 that is 2 % of the parameters to learn, and afterwards the product can be added to the matrix, so that the
finished model is no slower than before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError

Scaling = Literal["alpha/rank", "alpha"]


class LoRALayer(nn.Module):
    """The correction alone: `scale * (x A B)`, zero until it has been trained, since B starts as zeros.

    The scale is alpha / rank, as in the paper: the same learning rate then suits any rank. The printed book
    scales by alpha alone (`scaling="alpha"`).

    Shapes: x (..., in_dim) -> (..., out_dim); A (in_dim, R), B (R, out_dim).
    Raises: ConfigError for a rank below 1 or an unknown scaling.
    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
    """

    def __init__(
        self, in_dim: int, out_dim: int, rank: int, alpha: float, *, scaling: Scaling = "alpha/rank"
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"LoRA's rank must be at least 1, got {rank}; 8 and 16 are usual.")
        if scaling not in ("alpha/rank", "alpha"):
            raise ConfigError(f"LoRA's scaling must be alpha/rank or alpha, got {scaling!r}.")
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear's own weight
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.alpha = alpha
        self.rank = rank
        self.scaling = alpha / rank if scaling == "alpha/rank" else alpha

    def forward(self, x: Tensor) -> Tensor:
        """The correction to the layer's output."""
        return self.scaling * (x @ self.A @ self.B)

    def product(self) -> Tensor:
        """The same correction as a matrix to add to an `nn.Linear`'s weight.

        Shapes: -> (out_dim, in_dim).
        """
        return self.scaling * (self.A @ self.B).mT


class LinearWithLoRA(nn.Module):
    """A linear layer and its correction, added up.

    The correction lives where the layer does, and in its number format. The layer itself is not frozen here.

    Shapes: x (..., in) -> (..., out).
    """

    def __init__(
        self, linear: nn.Linear, rank: int, alpha: float, *, scaling: Scaling = "alpha/rank"
    ) -> None:
        super().__init__()
        self.linear = linear
        lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha, scaling=scaling)
        self.lora = lora.to(device=linear.weight.device, dtype=linear.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, corrected."""
        output: Tensor = self.linear(x) + self.lora(x)
        return output


def replace_linear_with_lora(
    model: nn.Module, rank: int, alpha: float, *, scaling: Scaling = "alpha/rank"
) -> None:
    """Give every linear layer inside a model a correction, in place and in the order of `named_children`.

    Freeze the model first (`requires_grad_(False)`), then only the corrections learn.

    Raises: ConfigError when the model has corrections already, or no linear layer inside it.
    """
    if any(isinstance(module, LoRALayer) for module in model.modules()):
        raise ConfigError("the model should have no LoRA layers yet, found some; call merge_lora first.")
    places = list(_linear_layers(model))
    if not places:
        raise ConfigError("the model should hold linear layers, found none; give the whole model.")
    for parent, name, child in places:
        setattr(parent, name, LinearWithLoRA(child, rank, alpha, scaling=scaling))


def lora_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The corrections' own parameters: what an optimizer should be given, and what is worth saving."""
    for module in model.modules():
        if isinstance(module, LoRALayer):
            yield from module.parameters()


@torch.no_grad()
def merge_lora(model: nn.Module) -> int:
    """Add every correction to its weight and put the plain linear layers back, in place; says how many.

    The model computes the same as before, is as fast as it was without LoRA, and its weights have their usual
    names again. An output head that shares its weight with the embedding gets its own, since the correction
    is the head's only; the model's config then says so.
    """
    n_merged = 0
    shared = _shared_weights(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, LinearWithLoRA):
                continue
            linear = child.linear
            corrected = linear.weight + child.lora.product()
            if id(linear.weight) in shared:
                linear.weight = nn.Parameter(corrected, requires_grad=linear.weight.requires_grad)
                _say_untied(parent)
            else:
                linear.weight.copy_(corrected)
            setattr(parent, name, linear)
            n_merged += 1
    return n_merged


def _linear_layers(parent: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Each linear layer with its parent and its name there, depth first: the book's order of random draws."""
    for name, child in parent.named_children():
        if isinstance(child, nn.Linear):
            yield parent, name, child
        else:
            yield from _linear_layers(child)


def _shared_weights(model: nn.Module) -> set[int]:
    """Ids of the weights that stand in more than one place of the model."""
    seen: set[int] = set()
    shared: set[int] = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (shared if id(parameter) in seen else seen).add(id(parameter))
    return shared


def _say_untied(parent: nn.Module) -> None:
    config = getattr(parent, "config", None)
    if config is not None and getattr(config, "tie_embeddings", False):
        parent.config = dataclasses.replace(config, tie_embeddings=False)
