"""Out-of-memory errors become advice; other errors stay what they are."""

from __future__ import annotations

import pytest
import torch

from scratchlm.core.errors import OutOfMemoryError
from scratchlm.training.memory import memory_errors_explained

ADVICE = "halve batch_size"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_every_way_of_running_out_names_the_batch_size_and_a_way_out(error):
    advice = "found none left; halve batch_size"
    with pytest.raises(OutOfMemoryError, match=advice) as caught, memory_errors_explained(ADVICE):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.exit_code == 6


def test_other_runtime_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="shapes") as caught, memory_errors_explained(ADVICE):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not isinstance(caught.value, OutOfMemoryError)
