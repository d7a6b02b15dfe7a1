"""Speed up frozen linear layers on the CPU: pack each weight once in the layout of oneDNN's matrix kernels.

`nn.Linear` stores its weight in row-major order, and oneDNN, which is part of torch, reorders it into blocks
at every call. A frozen weight never changes, so reordering it once is enough.
"""

import contextlib
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scratchlm.model.gelu import GELU
from scratchlm.model.linear import is_plain_linear


class PackedLinear(nn.Module):
    """A frozen linear layer with a packed copy of its weight, followed by GELU if one is given.

    Shapes: x (..., n_in) -> (..., n_out); n_rows is the usual number of rows of x, but any number works.
    """

    def __init__(self, linear: nn.Linear, gelu: GELU | None = None, *, n_rows: int) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), n_rows)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.activation = "none" if gelu is None else "gelu"
        self.algorithm = "none" if gelu is None or gelu.exact else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """The output of the layer, after GELU if there is one."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, [], self.algorithm
        )
        return output


@contextlib.contextmanager
def packed_linears(modules: nn.Module, *, n_rows: int, budget_bytes: int) -> Iterator[int]:
    """Replace the linear layers inside `modules` by packed ones for the duration of a with block; yields their number.

    Only float32 layers on the CPU are packed, until the copies take budget_bytes; all others, and all layers if this
    torch has no such kernel, are unchanged. A GELU that follows a layer in a Sequential is applied by the
    kernel. The results agree with those of the plain layers up to rounding. Run it without gradients.

    Shapes: n_rows is the usual number of tokens in a batch.
    """
    gelus = _following_gelus(modules)
    originals: dict[str, nn.Module] = {}
    n_packed = 0
    try:
        for name, layer in list(modules.named_modules()) if can_pack() else ():
            if not is_plain_linear(layer) or not _is_float32_on_cpu(layer.weight):
                continue
            budget_bytes -= layer.weight.nbytes
            if budget_bytes < 0:
                break
            originals[name], gelu = layer, None
            if name in gelus:
                gelu_name, gelu = gelus[name]
                originals[gelu_name] = gelu
                modules.set_submodule(gelu_name, nn.Identity())
            modules.set_submodule(name, PackedLinear(layer, gelu, n_rows=n_rows))
            n_packed += 1
        yield n_packed
    finally:
        for name, module in originals.items():
            modules.set_submodule(name, module)


def can_pack() -> bool:
    """Whether this version of torch has the kernels, which are internal and may change."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _following_gelus(modules: nn.Module) -> dict[str, tuple[str, GELU]]:
    """Map a layer's dotted name to the GELU that directly follows it and its name."""
    return {
        f"{path}.{first}".lstrip("."): (f"{path}.{second}".lstrip("."), module)
        for path, sequence in modules.named_modules()
        if isinstance(sequence, nn.Sequential)
        for (first, _), (second, module) in itertools.pairwise(sequence.named_children())
        if isinstance(module, GELU)
    }


def _is_float32_on_cpu(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"
