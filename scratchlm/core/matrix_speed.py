"""Measure how fast this machine multiplies matrices: the upper limit of the speed of training."""

import time
from collections.abc import Callable

import torch

from scratchlm.core.matrix_product import product

SHAPE = (1024, 768, 3072)  # rows, inputs, outputs: 1,024 tokens through GPT-2 small's first feed-forward


def seconds_of(action: Callable[[], object], device: torch.device, *, n: int = 4) -> list[float]:
    """The time of n runs of an action, without the first, which is slower."""
    found = []
    for _ in range(n):
        started_at_s = time.perf_counter()
        action()
        if device.type == "cuda":  # a GPU works on after the call
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started_at_s)
    return found[1:]


def matrix_flops_per_s(
    dtype: torch.dtype = torch.float32,
    *,
    device: torch.device | str = "cpu",
    shape: tuple[int, int, int] = SHAPE,
) -> float:
    """The speed of products of this shape (rows, inputs, outputs), the fastest of several.

    Units: floating-point operations per second, two for each product of two numbers.
    """
    n_rows, n_in, n_out = shape
    x = torch.randn(n_rows, n_in, device=device, dtype=dtype)
    weight = torch.randn(n_out, n_in, device=device, dtype=dtype)
    fastest_s = min(seconds_of(lambda: product(x, weight), torch.device(device), n=8))
    return 2 * n_rows * n_in * n_out / fastest_s
