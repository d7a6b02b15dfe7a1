"""What every kind of quantization shares: a grid of representable numbers for each group of weights."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from scratchlm.core.errors import ConfigError
from scratchlm.quantization.matrix import QuantizedMatrix, pack_nibbles

ROUNDED_AT_ONCE = 1 << 21  # weights whose codes are computed together, at some 50 bytes each


class Fit(NamedTuple):
    """The grid of each group: its weights are `scale * level(code) + offset`.

    Shapes: (..., 1) each, for groups (..., G).
    """

    scale: Tensor
    offset: Tensor | None = None


class Grid(Protocol):
    """A kind of quantization: fit a grid to a group of weights, and find the nearest point on it."""

    bits: int
    table: Tensor | None  # of levels by code, where they are not evenly spaced

    def fit(self, groups: Tensor, importance: Tensor | None = None) -> Fit:
        """Choose the scale (and the offset) of each group; groups (..., G), importance of the squared errors (G,)."""

    def encode(self, weights: Tensor, fit: Fit) -> Tensor:
        """The codes of the nearest points on the grid; weights (..., G) -> (..., G)."""

    def decode(self, codes: Tensor, fit: Fit) -> Tensor:
        """The points of these codes; codes (..., G) -> (..., G) float32."""


def check_weights(weight: Tensor) -> None:
    """Check that a weight can be quantized.

    Raises: ConfigError for anything but a matrix of finite numbers.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ConfigError(
            f"only a matrix of floating-point weights can be quantized, got shape {tuple(weight.shape)} and type "
            f"{weight.dtype}; quantize the original model."
        )
    if not bool(weight.isfinite().all()):
        raise ConfigError("weights that are NaN or infinite cannot be quantized; use an undamaged model.")


@torch.no_grad()
def round_to_nearest(weight: Tensor, grid: Grid, *, group_size: int) -> QuantizedMatrix:
    """Quantize a matrix: each weight becomes the nearest number on its group's grid.

    Shapes: weight (out, in), where in is a multiple of group_size.
    Raises: ConfigError for weights that are not finite.
    """
    check_weights(weight)
    n_groups = weight.shape[1] // group_size
    parts = []
    for rows in torch.split(weight, max(1, ROUNDED_AT_ONCE // weight.shape[1])):
        groups = rows.float().reshape(-1, n_groups, group_size)  # (rows, in / G, G)
        fit = grid.fit(groups)
        parts.append((grid.encode(groups, fit).flatten(1), fit))
    codes = torch.cat([codes for codes, _ in parts])
    scale = torch.cat([fit.scale for _, fit in parts]).squeeze(-1)
    offsets = [fit.offset for _, fit in parts if fit.offset is not None]
    return to_matrix(codes, scale, torch.cat(offsets).squeeze(-1) if offsets else None, grid)


def to_matrix(codes: Tensor, scale: Tensor, offset: Tensor | None, grid: Grid) -> QuantizedMatrix:
    """Store codes as a matrix, two to a byte for 4 bits.

    Shapes: codes (out, in), scale and offset (out, in / G).
    """
    stored = codes.to(torch.int8) if grid.bits == 8 else pack_nibbles(codes, scale.shape[1])
    table = None if grid.table is None else grid.table.to(scale.device, copy=True)
    return QuantizedMatrix(stored, scale.contiguous(), None if offset is None else offset.contiguous(), table)
