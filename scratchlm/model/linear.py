"""Linear layers: all are built here, so that another kind, such as quantized ones, can replace them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError


def build_linear(
    in_features: int,
    out_features: int,
    *,
    bias: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Linear:
    """Build one of the model's linear layers, with torch's default initialisation.

    Shapes: the layer maps (..., in_features) -> (..., out_features); its weight is (out_features, in_features).
    """
    return nn.Linear(in_features, out_features, bias=bias, device=device, dtype=dtype)


def dense_weight(layer: nn.Module) -> Tensor:
    """Read a linear layer's weight as a plain matrix.

    Shapes: -> (out_features, in_features).
    Raises: ConfigError for a layer without such a matrix.
    """
    if not isinstance(layer, nn.Linear):
        raise ConfigError(
            f"the weight of a {type(layer).__name__} cannot be read as a plain matrix; use a model whose linear "
            "layers are nn.Linear, for example with adapters merged."
        )
    return layer.weight
