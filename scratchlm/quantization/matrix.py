"""The storage of a quantized matrix: small integer codes, and a scale for each group of weights in a row.

A weight is `scale * code` for 8 bits, `scale * (code - 8)` for symmetric 4 bits, `scale * code + offset` for
asymmetric 4 bits, and `scale * table[code]` for NF4. Two 4-bit codes share a byte: within each group of G weights
byte j holds weight j in its low half and weight j + G/2 in its high half, as in llama.cpp's q4_0 and q4_1.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["int8", "int4", "int4_asymmetric", "nf4"]
GROUP_SIZES = (128, 64, 32)  # of 4-bit matrices; also of 8-bit ones, which by default have one group per row
CENTRE = 8  # the code of zero in a symmetric 4-bit matrix, whose codes are 0 to 15
PARTS = ("codes", "scale", "offset", "table")  # names of the tensors, in this order


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix of 8- or 4-bit codes.

    Shapes: codes (out, in) int8, or (out, in / 2) uint8 for 4 bits; scale and offset (out, in / G) float32; table
        (16,) float32.
    """

    codes: Tensor
    scale: Tensor
    offset: Tensor | None = None  # asymmetric 4 bits only
    table: Tensor | None = None  # NF4 only

    @property
    def bits(self) -> int:
        """Bits per code, 8 or 4."""
        return 8 if self.codes.dtype == torch.int8 else 4

    @property
    def kind(self) -> Kind:
        """How a code becomes a weight."""
        if self.bits == 8:
            return "int8"
        return "nf4" if self.table is not None else "int4" if self.offset is None else "int4_asymmetric"

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the matrix that this one stands for."""
        n_rows, n_bytes = self.codes.shape
        return n_rows, n_bytes if self.bits == 8 else 2 * n_bytes

    @property
    def group_size(self) -> int:
        """Number of neighbouring weights of a row that share a scale."""
        return int(self.shape[1] // self.scale.shape[1])

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        """Compute the weights of the rows from `first` up to but not including `last`.

        Shapes: -> (last - first, in) float32.
        """
        offset = None if self.offset is None else self.offset[first:last]
        return dequantize(self.codes[first:last], self.scale[first:last], offset, self.table)

    def problem(self) -> str | None:
        """Say which shape, type or number cannot belong to a quantized matrix; None if all can."""
        codes, scale, offset, table = self.codes, self.scale, self.offset, self.table
        if codes.dtype not in (torch.int8, torch.uint8) or codes.dim() != 2 or codes.numel() == 0:
            return f"codes of shape {tuple(codes.shape)} and type {codes.dtype}, not a matrix of 8 bits"
        n_rows, n_in = self.shape
        if scale.dtype != torch.float32 or scale.dim() != 2 or len(scale) != n_rows or scale.numel() == 0:
            return f"scales of shape {tuple(scale.shape)} and type {scale.dtype} for {n_rows} rows"
        n_groups = scale.shape[1]
        allowed = (*GROUP_SIZES, n_in) if self.bits == 8 else GROUP_SIZES
        if n_in % n_groups != 0 or n_in // n_groups not in allowed:
            return f"{n_groups} groups in rows of {n_in} weights, not of {' or '.join(map(str, allowed))}"
        if self.bits == 8 and (offset is not None or table is not None):
            return "an offset or a table beside 8-bit codes"
        if offset is not None and (table is not None or offset.dtype != torch.float32):
            return f"offsets of type {offset.dtype}, or a table too"
        if offset is not None and offset.shape != scale.shape:
            return f"offsets of shape {tuple(offset.shape)} beside scales of shape {tuple(scale.shape)}"
        if table is not None and (tuple(table.shape) != (16,) or table.dtype != torch.float32):
            return f"a table of shape {tuple(table.shape)} and type {table.dtype}, not 16 float32 numbers"
        return self._number_problem()

    def _number_problem(self) -> str | None:
        largest = 0.0
        for name in ("scale", "offset", "table"):
            numbers = getattr(self, name)
            extreme = 0.0 if numbers is None else float(numbers.abs().amax())
            if not math.isfinite(extreme):
                return f"numbers in its {name} that are not finite"
            largest = max(largest, extreme)
        if largest > torch.finfo(torch.float32).max / 512:  # the sum of two products with 8 bits stays finite
            return f"a scale, offset or table entry of {largest:.3g}, beyond what float32 products can hold"
        return None


def dequantize(codes: Tensor, scale: Tensor, offset: Tensor | None, table: Tensor | None) -> Tensor:
    """Compute the weights that codes stand for.

    Shapes: codes (..., in) or (..., in / 2), scale and offset (..., in / G) -> (..., in) float32.
    """
    is_packed, n_groups = codes.dtype == torch.uint8, scale.shape[-1]
    if is_packed:
        codes = unpack_nibbles(codes, n_groups)  # (..., in)
    levels = codes.float() if table is None else table[codes.int()]
    if is_packed and offset is None and table is None:
        levels -= CENTRE
    groups = levels.view(*levels.shape[:-1], n_groups, -1)  # (..., in / G, G)
    groups *= scale[..., None]
    if offset is not None:
        groups += offset[..., None]
    return groups.view(levels.shape)


def pack_nibbles(codes: Tensor, n_groups: int) -> Tensor:
    """Put two 4-bit codes into each byte.

    Shapes: codes (..., in), 0 to 15 -> (..., in / 2) uint8.
    """
    halves = codes.to(torch.uint8).reshape(*codes.shape[:-1], n_groups, 2, -1)  # (..., in / G, 2, G / 2)
    packed = halves[..., 0, :] | halves[..., 1, :] << 4  # (..., in / G, G / 2)
    return packed.flatten(-2)


def unpack_nibbles(packed: Tensor, n_groups: int) -> Tensor:
    """Take two 4-bit codes out of each byte; the inverse of `pack_nibbles`.

    Shapes: packed (..., in / 2) -> (..., in) uint8.
    """
    groups = packed.reshape(*packed.shape[:-1], n_groups, -1)  # (..., in / G, G / 2)
    return torch.stack([groups & 15, groups >> 4], dim=-2).flatten(-3)
