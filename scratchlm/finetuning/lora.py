"""LoRA: leave the weights as they are, and learn a thin correction beside each of them.

A matrix of in x out numbers is corrected by A B, with A (in, R) and B (R, out). For GPT-2's small model and R
16 that is 2 % of the parameters to learn, and afterwards the product can be added to the matrix, so that the
finished model is no slower than before.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import typing
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.finetuning.targets import EVERY_LINEAR, Place, chosen_places, widths

M = TypeVar("M", bound=nn.Module)
Scaling = Literal["alpha/rank", "alpha/sqrt(rank)", "alpha"]


class LoRALayer(nn.Module):
    """The correction alone: `scale * (x A B)`, zero until it has been trained, since B starts as zeros.

    The scale is alpha / rank, as in the paper: the same learning rate then suits any rank. Over large ranks
    it shrinks the correction too much, which alpha / sqrt(rank) mends. The printed book scales by alpha alone.
    Dropout blanks some of x while the model trains, for the correction only.

    Shapes: x (..., in_dim) -> (..., out_dim); A (in_dim, R), B (R, out_dim).
    Raises: ConfigError for a rank below 1, an unknown scaling, or a dropout outside [0, 1).
    Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1; the square root
        from Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA".
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if rank < 1:
            raise ConfigError(f"LoRA's rank must be at least 1, got {rank}; 8 and 16 are usual.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"LoRA's dropout must be at least 0 and below 1, got {dropout}; 0.05 is usual.")
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear's own weight
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.alpha = alpha
        self.rank = rank
        self.scaling = _scale(alpha, rank, scaling)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """The correction to the layer's output."""
        x = F.dropout(x, self.dropout, training=self.training) if self.dropout else x
        return self.scaling * (x @ self.A @ self.B)

    def product(self) -> Tensor:
        """The same correction as a matrix to add to an `nn.Linear`'s weight.

        Shapes: -> (out_dim, in_dim).
        """
        return self.scaling * (self.A @ self.B).mT


class LinearWithLoRA(nn.Module):
    """A linear layer and its correction, added up.

    The layer is an `nn.Linear` or anything that has `in_features` and `out_features` and computes like one,
    such as a quantized layer. The correction lives where the layer does, in its number format if that is a
    floating-point one and in float32 otherwise. The layer itself is not frozen here.

    Shapes: x (..., in) -> (..., out).
    Raises: ConfigError for a module that is not linear, and as LoRALayer does.
    """

    def __init__(
        self,
        linear: nn.Module,
        rank: int,
        alpha: float,
        *,
        scaling: Scaling = "alpha/rank",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.linear = linear
        lora = LoRALayer(*widths(linear), rank, alpha, scaling=scaling, dropout=dropout)
        device, dtype = home_of(linear)
        self.lora = lora.to(device=device, dtype=dtype)
        self.is_merged = False  # is the correction in the layer's weight at the moment?

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, corrected."""
        output: Tensor = self.linear(x)
        return output if self.is_merged else output + self.lora(x)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the correction to the layer's weight: as fast as without LoRA, and the same result.

        The weight becomes a new one, so that an embedding which shared the old one keeps it.
        Raises: ConfigError for a layer other than `nn.Linear`, whose weight cannot take a sum.
        """
        if not self.is_merged:
            self._shift_weight(self.lora.product())
            self.is_merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the correction out of the weight again: within rounding, what it was before."""
        if self.is_merged:
            self._shift_weight(-self.lora.product())
            self.is_merged = False

    def _shift_weight(self, change: Tensor) -> None:
        linear = plain_linear(self)
        linear.weight = nn.Parameter(linear.weight + change, requires_grad=linear.weight.requires_grad)


def plain_linear(layer: LinearWithLoRA) -> nn.Linear:
    """The layer under a correction, whose weight can take a sum.

    Raises: ConfigError for a layer other than `nn.Linear`, such as a quantized one.
    """
    if not isinstance(layer.linear, nn.Linear):
        raise ConfigError(
            f"a correction can be added to the weight of an nn.Linear, found {type(layer.linear).__name__}; leave it "
            "beside the layer, or load the base in floating point."
        )
    return layer.linear


def replace_linear_with_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    *,
    scaling: Scaling = "alpha/rank",
    dropout: float = 0.0,
    targets: Sequence[str] = EVERY_LINEAR,
) -> list[str]:
    """Give linear layers inside a model a correction, in place and in the order of `named_children`.

    `targets` chooses them by name: `W_query`, `trf_blocks.0.*` or `re:.*att[.]W_(query|value)`; the default takes
    all of them, as the book does. Freeze the model first (`requires_grad_(False)`), then only the corrections
    learn. Returns the layers' dotted names.

    Raises: ConfigError when the model has corrections already, no linear layer inside it, or none of a name
        that `targets` asks for.
    """
    places = places_to_correct(model, targets)
    for place in places:
        layer = LinearWithLoRA(place.linear, rank, alpha, scaling=scaling, dropout=dropout)
        setattr(place.parent, place.attribute, layer)
    return [place.name for place in places]


def places_to_correct(model: nn.Module, targets: Sequence[str]) -> list[Place]:
    """The linear layers that `targets` names in a model without corrections.

    Raises: ConfigError as `replace_linear_with_lora` does.
    """
    if any(isinstance(module, LoRALayer) for module in model.modules()):
        raise ConfigError("the model should have no LoRA layers yet, found some; call merge_lora first.")
    return chosen_places(model, targets)


def lora_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The corrections' own parameters: what an optimizer should be given, and what is worth saving."""
    for module in model.modules():
        if isinstance(module, LinearWithLoRA):
            own = module.named_parameters()
            yield from (parameter for name, parameter in own if not name.startswith("linear."))


def merge_lora(model: nn.Module) -> int:
    """Add every correction to its weight and put the plain linear layers back, in place; says how many.

    The model computes the same as before, is as fast as it was without LoRA, and its weights have their usual
    names again. An output head that shares its weight with the embedding gets its own, since the correction
    is the head's only; the model's config then says so. To take corrections out again, call `merge` and
    `unmerge` of the layers themselves.
    Raises: ConfigError for a correction of a layer other than `nn.Linear`; nothing is changed then.
    """
    for module in model.modules():
        if isinstance(module, LinearWithLoRA):
            plain_linear(module)
    n_merged = 0
    shared = _shared_weights(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, LinearWithLoRA):
                continue
            if id(plain_linear(child).weight) in shared:
                _say_untied(parent)
            child.merge()
            setattr(parent, name, child.linear)
            n_merged += 1
    return n_merged


def merged_copy(model: M) -> M:
    """The same model with merged weights, as others should load it; the one given stays as it is."""
    copied = copy.deepcopy(model)
    merge_lora(copied)
    return copied


def _scale(alpha: float, rank: int, scaling: Scaling) -> float:
    if scaling == "alpha/rank":
        return alpha / rank
    if scaling == "alpha/sqrt(rank)":
        return alpha / math.sqrt(rank)
    if scaling == "alpha":
        return alpha
    raise ConfigError(
        f"LoRA's scaling must be one of {', '.join(typing.get_args(Scaling))}, got {scaling!r}."
    )


def home_of(linear: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a layer lives, and the number format that a correction of it has."""
    tensors = [*linear.parameters(), *linear.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    is_plain = isinstance(linear, nn.Linear)  # a quantized layer's scales may be of a format of their own
    return device, tensors[0].dtype if is_plain else torch.float32


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
