"""Linear layers and embeddings whose matrix is quantized; a `GPTModel` computes with them as with its own."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scratchlm.core.matrix_product import product
from scratchlm.model.linear import build_linear
from scratchlm.quantization.matrix import PARTS, Kind, QuantizedMatrix, dequantize

DEQUANTIZED_AT_ONCE = 1 << 22  # weights in float32 at a time: 16 MB


class QuantizedWeight(nn.Module):
    """A quantized matrix as the buffers of a module. They are no parameters, so no optimizer changes them."""

    codes: Tensor
    scale: Tensor
    offset: Tensor | None
    table: Tensor | None

    def __init__(self, matrix: QuantizedMatrix) -> None:
        super().__init__()
        for name in PARTS:
            self.register_buffer(name, getattr(matrix, name))

    @property
    def matrix(self) -> QuantizedMatrix:
        """The matrix, which shares the buffers."""
        return QuantizedMatrix(self.codes, self.scale, self.offset, self.table)

    @property
    def kind(self) -> Kind:
        """How a code becomes a weight."""
        return self.matrix.kind

    @property
    def group_size(self) -> int:
        """Number of neighbouring weights of a row that share a scale."""
        return self.matrix.group_size

    @property
    def n_weights(self) -> int:
        """Number of weights in the matrix."""
        return math.prod(self.matrix.shape)

    def dense_weight(self) -> Tensor:
        """Compute the whole matrix.

        Shapes: -> (out, in) float32.
        """
        return self.matrix.dense()

    def as_dense(self) -> nn.Module:
        """The layer with a float32 weight in place of the quantized one."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """The shape, kind and group size."""
        n_out, n_in = self.matrix.shape
        return f"{n_in} -> {n_out}, {self.kind}, groups of {self.group_size}"


class QuantizedLinear(QuantizedWeight):
    """A linear layer with a quantized weight and a bias in floating point.

    The weights are computed when they are needed, a block of rows at a time, and never kept: neither for the next
    call nor for the backward pass, which computes them again. Gradients flow to the input and the bias.

    Shapes: x (..., in) -> (..., out).
    """

    def __init__(self, matrix: QuantizedMatrix, bias: nn.Parameter | None = None) -> None:
        super().__init__(matrix)
        self.bias: nn.Parameter | None
        self.register_parameter("bias", bias)

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.matrix.shape[1]

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.matrix.shape[0]

    def as_dense(self) -> nn.Linear:
        """A plain layer with the same weight, in float32."""
        layer = build_linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(self.dense_weight())
        layer.register_parameter("bias", self.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the dequantized weight and add the bias."""
        output: Tensor = _QuantizedProduct.apply(x, self.matrix)  # type: ignore[no-untyped-call]
        return output if self.bias is None else output + self.bias


class QuantizedEmbedding(QuantizedWeight):
    """An embedding with a quantized matrix; only the rows of the given ids are computed.

    Shapes: ids (...) -> (..., E).
    """

    def as_dense(self) -> nn.Embedding:
        """A plain embedding with the same vectors, in float32."""
        return nn.Embedding(*self.matrix.shape, _weight=self.dense_weight())

    def forward(self, ids: Tensor) -> Tensor:
        """Look the ids' rows up and dequantize them."""
        offset = None if self.offset is None else F.embedding(ids, self.offset)
        return dequantize(F.embedding(ids, self.codes), F.embedding(ids, self.scale), offset, self.table)


class _QuantizedProduct(torch.autograd.Function):
    """x W^T for a quantized W, without saving W in float32 for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: QuantizedMatrix) -> Tensor:
        ctx.matrix = matrix
        parts = [product(x, block) for _, block in _row_blocks(matrix, x.dtype)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total: Tensor | None = None
        for rows, block in _row_blocks(ctx.matrix, gradients[0].dtype):
            part = product(gradients[0][..., rows], block.mT)  # (..., in)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total, None


def _row_blocks(matrix: QuantizedMatrix, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """The rows of the matrix in floating point, a few at a time."""
    n_out, n_in = matrix.shape
    n_rows = max(1, DEQUANTIZED_AT_ONCE // n_in)
    for first in range(0, n_out, n_rows):
        rows = slice(first, min(first + n_rows, n_out))
        yield rows, matrix.dense(rows.start, rows.stop).to(dtype)
