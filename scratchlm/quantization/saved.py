"""Describe a model's quantized layers for its config.json, and rebuild them from the tensors of a weight file."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scratchlm.core.errors import CheckpointError
from scratchlm.model.gpt import GPTModel
from scratchlm.quantization.apply import quantized_layers
from scratchlm.quantization.layers import QuantizedEmbedding, QuantizedLinear
from scratchlm.quantization.matrix import PARTS, QuantizedMatrix

_CODES = ".codes"


def describe_layers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The kind and group size of every quantized layer, as plain data; {} for a model without any.

    Example of one entry: `"trf_blocks.0.att.W_query": {"kind": "int4", "group_size": 64}`.
    """
    layers = quantized_layers(model).items()
    return {name: {"kind": layer.kind, "group_size": layer.group_size} for name, layer in layers}


def add_quantized_layers(model: GPTModel, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Replace each layer whose matrix is quantized in the weights, in place; tensors are shared, not copied.

    Raises: CheckpointError for a quantized matrix of an unknown layer, of another shape than the layer's, or with
        tensors that do not belong together or are not finite.
    """
    tied = model.has_tied_head()
    for codes in [name for name in weights if name.endswith(_CODES)]:
        name = codes.removesuffix(_CODES)
        if tied and name == "out_head" and f"tok_emb{_CODES}" in weights:
            continue  # a copy of the shared matrix
        parts = {part: weights.get(f"{name}.{part}") for part in PARTS}
        if parts["scale"] is None:
            raise CheckpointError(f"{where} holds {codes:.120} without {name:.120}.scale; use another copy.")
        matrix = QuantizedMatrix(**parts)  # type: ignore[arg-type]
        layer = _layer(model, name)
        problem = matrix.problem()
        if problem is None and (layer is None or tuple(layer.weight.shape) != matrix.shape):
            expected = "no such layer" if layer is None else f"a weight of {tuple(layer.weight.shape)}"
            problem = f"the shape {matrix.shape}, but the model has {expected}"
        if problem is not None:
            raise CheckpointError(f"{name:.120} in {where} has {problem}; use another copy.")
        if isinstance(layer, nn.Embedding):
            model.set_submodule("tok_emb", QuantizedEmbedding(matrix))
            if tied and "out_head.weight" not in weights:
                model.set_submodule("out_head", QuantizedLinear(matrix))
        elif isinstance(layer, nn.Linear):
            model.set_submodule(name, QuantizedLinear(matrix, layer.bias))


def _layer(model: GPTModel, name: str) -> nn.Linear | nn.Embedding | None:
    """The layer of this name that can be quantized."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        return None
    can_be_quantized = isinstance(layer, nn.Linear) or layer is model.tok_emb
    return layer if can_be_quantized and isinstance(layer, (nn.Linear, nn.Embedding)) else None
