"""Linear layers and the token embedding: built, read and shared here, so that quantized ones can replace them."""

from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from scratchlm.core.errors import ConfigError
from scratchlm.core.matrix_product import product


@runtime_checkable
class PackedWeight(Protocol):
    """A layer that stores its matrix in another form than numbers in floating point."""

    @property
    def n_weights(self) -> int:
        """Number of weights in the matrix."""

    def dense_weight(self) -> Tensor:
        """Compute the matrix in floating point."""


class Linear(nn.Linear):
    """`torch.nn.Linear` with the fastest matrix product of this processor; see `matrix_product.py`.

    Shapes: (..., in_features) -> (..., out_features).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the weight and add the bias."""
        return product(x, self.weight, self.bias)


def is_plain_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a linear layer and nothing else, such as one with an adapter."""
    return type(layer) in (Linear, nn.Linear)


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
    return Linear(in_features, out_features, bias=bias, device=device, dtype=dtype)


def dense_weight(layer: nn.Module) -> Tensor:
    """Read the weight of a linear layer or an embedding as a plain matrix; a quantized one is computed.

    Shapes: -> (out_features, in_features), or (V, E) for an embedding.
    Raises: ConfigError for a layer without such a matrix.
    """
    if isinstance(layer, PackedWeight):
        return layer.dense_weight()
    if not isinstance(layer, (nn.Linear, nn.Embedding)):
        raise ConfigError(
            f"the weight of a {type(layer).__name__} cannot be read as a plain matrix; merge adapters first."
        )
    return layer.weight


def stored_weight(layer: nn.Module) -> dict[str, Tensor]:
    """The tensors that hold a layer's matrix, by name: `weight`, or those of a quantized one; not the bias."""
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    return {name: tensor for name, tensor in tensors if name != "bias"}


def share_weight(source: nn.Module, target: nn.Module) -> None:
    """Let a layer use the tensors of another one's matrix."""
    for name, tensor in stored_weight(source).items():
        setattr(target, name, tensor)
