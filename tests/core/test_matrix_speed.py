"""The speed of matrix products is measured, and is that of this machine."""

import time

import pytest
import torch

from scratchlm.core.matrix_speed import SHAPE, matrix_flops_per_s


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_speed_is_the_work_of_a_product_over_its_time(dtype):
    """The fastest of several products cannot be slower than their mean, and no processor reaches 1e16."""
    started_at_s = time.perf_counter()
    speed = matrix_flops_per_s(dtype)
    n_products = 8  # the first is not counted
    n_rows, n_in, n_out = SHAPE
    mean_flops_per_s = n_products * 2 * n_rows * n_in * n_out / (time.perf_counter() - started_at_s)
    assert mean_flops_per_s < speed < 1e16
