"""Low-rank adaptation (LoRA): freeze a model's weights and train a small low-rank update beside each of them.

A weight matrix with in x out entries gets an update A B, with A (in, R) and B (R, out). For GPT-2's small model and
R = 16 these are 2 % of the parameters. After training the product is added to the weight (`merge_lora`), so that the
finished model is as fast as before.
"""

import copy
import dataclasses
import fnmatch
import itertools
import math
import re
import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError
from scratchlm.model.linear import dense_weight, stored_weight
from scratchlm.quantization.layers import QuantizedLinear

M = TypeVar("M", bound=nn.Module)
Scaling = Literal["alpha/rank", "alpha/sqrt(rank)", "alpha"]
EVERY_LINEAR = ("*",)
EVERY_LINEAR_IN_BLOCKS = ("trf_blocks.*",)  # all but the output head, the usual choice
REGEX = "re:"  # prefix of a target that is a regular expression


def check_dropout(dropout: float) -> None:
    """Reject a dropout outside [0, 1).

    Raises: ConfigError.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"LoRA's dropout must be at least 0 and below 1, got {dropout}; 0.05 is usual.")


class LoRALayer(nn.Module):
    """Compute the low-rank update `scale * (x A B)`; it starts at zero, since B starts as zeros.

    The scale is alpha / rank, as in the paper, so that one learning rate suits every rank. For large ranks this makes
    the update too small, which alpha / sqrt(rank) fixes. The printed book scales by alpha alone. Dropout applies to
    the update's input during training only.

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
        check_dropout(dropout)
        scales = {"alpha/rank": alpha / rank, "alpha/sqrt(rank)": alpha / math.sqrt(rank), "alpha": alpha}
        if scaling not in scales:
            choices = ", ".join(typing.get_args(Scaling))
            raise ConfigError(f"LoRA's scaling must be one of {choices}, got {scaling!r}; choose one.")
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear's own weight
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.alpha = alpha
        self.rank = rank
        self.scaling = scales[scaling]
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """The update to the layer's output."""
        x = F.dropout(x, self.dropout, training=self.training) if self.dropout else x
        return self.scaling * (x @ self.A @ self.B)

    def product(self) -> Tensor:
        """The same update as a matrix that can be added to an `nn.Linear`'s weight.

        Shapes: -> (out_dim, in_dim).
        """
        return self.scaling * (self.A @ self.B).mT


class LinearWithLoRA(nn.Module):
    """Add a low-rank update to the output of a linear layer.

    The layer is an `nn.Linear` or any module with `in_features` and `out_features` that computes like one, such as a
    quantized layer. The update is on the layer's device, in its dtype if that is a floating-point one and in float32
    otherwise. The layer itself is not frozen here.

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
        lora = LoRALayer(*linear_widths(linear), rank, alpha, scaling=scaling, dropout=dropout)
        first = next(iter([*linear.parameters(), *linear.buffers()]), lora.A)
        # A quantized layer may store its scales in a dtype that is unsuitable for training.
        dtype = first.dtype if isinstance(linear, nn.Linear) else torch.float32
        self.lora = lora.to(device=first.device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output plus the update."""
        output: Tensor = self.linear(x)
        update: Tensor = self.lora(x)
        return output + update

    def merged_weight(self) -> Tensor:
        """The weight of a plain linear layer that computes the same.

        Shapes: -> (out, in).
        Raises: ConfigError for a layer without a weight matrix.
        """
        return dense_weight(self.linear) + self.lora.product()


def plain_linear(layer: LinearWithLoRA) -> nn.Linear:
    """The `nn.Linear` to which the update belongs; for a quantized layer a dequantized copy.

    Raises: ConfigError for another kind of layer.
    """
    if isinstance(layer.linear, QuantizedLinear):
        return layer.linear.as_dense()
    if not isinstance(layer.linear, nn.Linear):
        raise ConfigError(
            f"LoRA can be merged into the weight of an nn.Linear only, got {type(layer.linear).__name__}; keep the "
            "adapter beside the layer, or load the base in floating point."
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
    layer_type: type[LinearWithLoRA] = LinearWithLoRA,
) -> list[str]:
    """Replace linear layers inside a model by layers with a low-rank update, in place and in `named_children` order.

    `targets` selects them by name: `W_query`, `trf_blocks.0.*` or `re:.*att[.]W_(query|value)`; the default selects
    all of them, as the book does. Freeze the model first (`requires_grad_(False)`), so that only the updates are
    trained. `layer_type` is LinearWithDoRA for DoRA. Returns the layers' dotted names.

    Raises: ConfigError when the model has LoRA layers already, has no linear layer, or none that a target names.
    """
    if any(isinstance(module, LoRALayer) for module in model.modules()):
        raise ConfigError("the model has LoRA layers already; call merge_lora first.")
    layers = {
        name: layer_type(linear, rank, alpha, scaling=scaling, dropout=dropout)
        for name, linear in select_linear_layers(model, targets).items()
    }
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    return list(layers)


def lora_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of the low-rank updates: the ones to train and to save."""
    for module in model.modules():
        if isinstance(module, LinearWithLoRA):
            own = module.named_parameters()
            yield from (parameter for name, parameter in own if not name.startswith("linear."))


def merge_lora(model: nn.Module) -> int:
    """Add every low-rank update to its weight and restore the plain linear layers, in place; returns their number.

    The model computes the same as before, as fast as without LoRA, and its weights have their usual names again. An
    output head that shares its weight with the embedding gets a separate weight, because only the head was
    updated; the model's config is changed accordingly. A quantized layer becomes one in floating point.
    Raises: ConfigError for an update of another kind of layer; nothing is changed then.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LinearWithLoRA)}
    for layer in layers.values():
        if not isinstance(layer.linear, (nn.Linear, QuantizedLinear)):
            plain_linear(layer)  # raises
    shared = _shared_weights(model)
    for name, layer in layers.items():
        if shared.intersection(map(id, stored_weight(layer.linear).values())):
            _untie_config(model.get_submodule(name.rpartition(".")[0]))
        linear = plain_linear(layer)
        weight = layer.merged_weight().detach()  # a new tensor: an embedding that shares the old one keeps it
        linear.weight = nn.Parameter(weight, requires_grad=linear.weight.requires_grad)
        model.set_submodule(name, linear)
    return len(layers)


def merged_copy(model: M) -> M:
    """A copy of the model with merged weights, for saving."""
    copied = copy.deepcopy(model)
    merge_lora(copied)
    return copied


def _shared_weights(model: nn.Module) -> set[int]:
    """Ids of the parameters and buffers that appear in more than one place of the model."""
    places = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    counts = Counter(id(tensor) for _, tensor in itertools.chain(*places))
    return {tensor for tensor, n in counts.items() if n > 1}


def _untie_config(parent: nn.Module) -> None:
    config = getattr(parent, "config", None)
    if config is not None and getattr(config, "tie_embeddings", False):
        parent.config = dataclasses.replace(config, tie_embeddings=False)


# --- selection of layers by name


def is_linear(module: object) -> bool:
    """Whether the module has `in_features` and `out_features`, as `nn.Linear` and quantized layers do."""
    return all(isinstance(getattr(module, side, None), int) for side in ("in_features", "out_features"))


def linear_widths(linear: nn.Module) -> tuple[int, int]:
    """A linear layer's number of inputs and outputs.

    Raises: ConfigError for a module that has none.
    """
    if not is_linear(linear):
        raise ConfigError(
            f"LoRA needs a layer with in_features and out_features, got {type(linear).__name__}; choose linear layers."
        )
    return cast(int, linear.in_features), cast(int, linear.out_features)


def select_linear_layers(model: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The linear layers whose dotted names match a target, in the model's order.

    A target is the end of a dotted name, with `*` and `?` as wildcards: `W_query` selects the layer of that name in
    every block, `trf_blocks.0.*` all layers of one block. After `re:` it is a regular expression for the whole name.
    Raises: ConfigError for a model without linear layers, no target, an invalid expression, and a target that
        matches nothing, with the nearest existing name.
    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> list(select_linear_layers(model, ["2"]))
        ['2']
    """
    layers = dict(_linear_layers(model))
    if not layers:
        raise ConfigError("the model has no linear layers; pass the whole model.")
    if not targets:
        raise ConfigError("LoRA needs at least one target; '*' selects all linear layers.")
    selected: set[str] = set()
    for target in targets:
        matching = {name for name in layers if _matches(target, name)}
        if not matching:
            names = {name.rpartition(".")[2] for name in layers}
            raise ConfigError(
                f"the LoRA target {target!r} matches no linear layer of the model; {nearest(target, names)}"
            )
        selected |= matching
    return {name: layer for name, layer in layers.items() if name in selected}


def _matches(target: str, name: str) -> bool:
    if target.startswith(REGEX):
        try:
            return re.fullmatch(target.removeprefix(REGEX), name) is not None
        except re.error as cause:
            raise ConfigError(
                f"the LoRA target {target!r} is not a valid regular expression ({cause}); correct it."
            ) from cause
    return fnmatch.fnmatchcase(name, target) or fnmatch.fnmatchcase(name, f"*.{target}")


def _linear_layers(parent: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Each linear layer by its dotted name, depth first: the order of the book's random draws."""
    for name, child in parent.named_children():
        if is_linear(child):
            yield f"{prefix}{name}", child
        else:
            yield from _linear_layers(child, f"{prefix}{name}.")
