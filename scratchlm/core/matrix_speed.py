"""Measure how fast this machine multiplies matrices: the upper limit of the speed of training."""

from __future__ import annotations

import time

import torch

SHAPE = (
    1024,
    768,
    3072,
)  # rows, inputs, outputs: 1,024 tokens through GPT-2 small's first feed-forward matrix


def matrix_flops_per_s(
    dtype: torch.dtype = torch.float32, *, device: torch.device | str = "cpu", at_least_s: float = 0.2
) -> float:
    """The speed of products of SHAPE: the fastest of several, after one that is not counted.

    Units: floating-point operations per second, two for each product of two numbers.
    """
    n_rows, n_in, n_out = SHAPE
    left = torch.randn(n_rows, n_in, device=device, dtype=dtype)
    right = torch.randn(n_in, n_out, device=device, dtype=dtype)
    started_at_s, best_s, n_done = time.perf_counter(), float("inf"), 0
    while n_done < 4 or time.perf_counter() - started_at_s < at_least_s:
        begin_s = time.perf_counter()
        torch.mm(left, right)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        if n_done > 0:
            best_s = min(best_s, time.perf_counter() - begin_s)
        n_done += 1
    return 2 * n_rows * n_in * n_out / best_s
