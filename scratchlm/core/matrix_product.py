"""Multiply by weight matrices on the CPU with the library that is fastest on this processor.

PyTorch multiplies float32 matrices with MKL, which uses 512-bit instructions on Intel's processors only. oneDNN, which
is part of PyTorch too, uses them on all: on an AMD EPYC with AVX-512 it is more than twice as fast. Both round
differently in the last digits, and both have the accuracy of float32.
"""

import functools
import os
import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scratchlm.core.errors import ConfigError

LIBRARIES = ("auto", "torch", "onednn")
# Multiplications in a product, some 3 ms of MKL's time. oneDNN compiles code for each new shape, which takes up to
# 2 ms, and batches of fine-tuning have ever new numbers of tokens.
LEAST_WORK = 1 << 28
CPU_DESCRIPTION = Path("/proc/cpuinfo")  # on Linux
OUTPUTS_AT_ONCE = 1 << 20  # numbers of an output that is computed in parts, 4 MiB


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a weight matrix, as `torch.nn.functional.linear` does: x times the transposed weight, plus bias.

    Shapes: x (..., n_in), weight (n_out, n_in), bias (n_out,) or None -> (..., n_out).
    Raises: ConfigError for an unknown $SCRATCHLM_PRODUCTS.
    """
    if not _uses_onednn(x, weight):
        return F.linear(x, weight, bias)
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        output: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return output
    return _onednn(x, weight, bias)


def product_into(output: Tensor, x: Tensor, weight: Tensor, *, add: bool = False) -> None:
    """Put `product(x, weight)` into `output`, or add it, with little memory besides. It has no gradient.

    Shapes: output (N, n_out), x (N, n_in), weight (n_out, n_in).
    """
    if not _uses_onednn(x, weight):
        output.addmm_(x, weight.mT, beta=int(add))
        return
    dim = 0 if len(x) > len(weight) else 1
    n_at_once = max(1, OUTPUTS_AT_ONCE // output.shape[1 - dim])
    parts = torch.split(output, n_at_once, dim)
    for part, some in zip(parts, torch.split(x if dim == 0 else weight, n_at_once)):
        computed = _onednn(some, weight) if dim == 0 else _onednn(x, some)
        part.add_(computed) if add else part.copy_(computed)


@functools.cache
def product_library() -> str:
    """The library that multiplies float32 matrices on the CPU, "torch" or "onednn".

    `$SCRATCHLM_PRODUCTS` names one of them; "auto", the default, is oneDNN on processors with AVX-512 that are not
    Intel's.
    Raises: ConfigError for another value.
    """
    name = os.environ.get("SCRATCHLM_PRODUCTS", "auto") or "auto"
    if name not in LIBRARIES:
        raise ConfigError(
            f"SCRATCHLM_PRODUCTS must be auto, torch or onednn, got {name!r}; choose one of them."
        )
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn, "_linear_pointwise"
    )
    if name == "onednn" and not has_onednn:
        raise ConfigError("SCRATCHLM_PRODUCTS is onednn, which this PyTorch lacks; use auto or torch.")
    is_faster = torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_intel()
    return "onednn" if name == "onednn" or (name == "auto" and has_onednn and is_faster) else "torch"


class _Product(torch.autograd.Function):
    """A product with gradients, which are products as well."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Shapes: see `product`."""
        return _onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        """Keep what the backward pass needs."""
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """From the gradient of the output (..., n_out) to those of x, weight and bias."""
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradients[0]
        rows = gradient.reshape(-1, gradient.shape[-1])  # (N, n_out)
        return (
            product(gradient, weight.mT) if needs_x else None,
            product(rows.mT, x.reshape(-1, x.shape[-1]).mT) if needs_weight else None,
            rows.sum(dim=0) if needs_bias else None,
        )


def _uses_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.numel() * len(weight) >= LEAST_WORK
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # nor exporting: plain operators there
        and product_library() == "onednn"
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return output


def _is_intel() -> bool:
    try:
        described = CPU_DESCRIPTION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        described = platform.processor()
    return "GenuineIntel" in described
