"""Frozen weights laid out as the processor's matrix kernels want them, while thousands of texts go through.

A Linear layer multiplies by its weight as it lies in memory. oneDNN, which torch brings along, can lay a weight out
once in blocks of the size that its kernels work on; frozen weights stay as they are, so once is enough.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scratchlm.model.gelu import GELU


@contextlib.contextmanager
def packed_linears(modules: nn.Module, *, n_rows: int, budget_bytes: int) -> Iterator[int]:
    """While it is open, the Linear layers in `modules` multiply by packed copies; yields how many do.

    Where GELU follows in a Sequential, the kernel applies it on the way out. Only float32 on the CPU, without
    gradients, is packed, as long as the copies stay within budget_bytes; any other layer, and every layer where this
    torch has no such kernel, works as always. Results agree with the plain layer's up to rounding.

    Shapes: n_rows is how many tokens usually come at once; any other number works.
    Units: budget_bytes is bytes.
    """
    curves = _curves_behind(modules)
    changed: list[nn.Module] = []
    n_packed = 0
    try:
        for layer in modules.modules() if can_pack() else ():
            if type(layer) is not nn.Linear or not _is_plain(layer.weight):
                continue
            budget_bytes -= layer.weight.nbytes
            if budget_bytes < 0:
                break
            curve = curves.get(layer)
            layer.forward = _Packed(layer, curve, n_rows)  # type: ignore[method-assign, assignment]
            changed.append(layer)
            if curve is not None:
                curve.forward = _already_applied  # type: ignore[method-assign]
                changed.append(curve)
            n_packed += 1
        yield n_packed
    finally:
        for module in changed:
            del module.forward


def can_pack() -> bool:
    """Does this torch have oneDNN's kernel? Its name is torch's own affair, so it may be missing in another version."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _curves_behind(modules: nn.Module) -> dict[nn.Module, GELU]:
    """The GELU that follows each layer at once."""
    rows = [list(row) for row in modules.modules() if isinstance(row, nn.Sequential)]
    return {one: other for row in rows for one, other in itertools.pairwise(row) if isinstance(other, GELU)}


def _is_plain(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"


def _already_applied(x: Tensor) -> Tensor:
    return x


class _Packed:
    """A layer's forward pass with a packed copy of its weight, and with the GELU behind it.

    Shapes: x (..., n_in) -> (..., n_out).
    """

    def __init__(self, layer: nn.Linear, curve: GELU | None, n_rows: int) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), n_rows)
        self.bias = None if layer.bias is None else layer.bias.detach()
        self.curve = "none" if curve is None else "gelu"
        self.kind = "none" if curve is None or curve.exact else "tanh"

    def __call__(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.curve, [], self.kind
        )
        return made
