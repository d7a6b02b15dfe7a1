import numpy as np
import pytest
import torch

from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.int8 import Int8Grid


def test_the_largest_weight_of_a_row_is_127_and_exact(generator):
    weight = torch.randn(5, 96, generator=generator)
    matrix = round_to_nearest(weight, Int8Grid(), group_size=96)
    assert matrix.codes.abs().amax(dim=1).tolist() == [127] * 5
    largest = weight.abs().argmax(dim=1, keepdim=True)
    torch.testing.assert_close(
        matrix.dense().gather(1, largest), weight.gather(1, largest), rtol=1e-6, atol=0
    )


def test_no_weight_is_off_by_more_than_half_a_step(generator):
    weight = torch.randn(5, 96, generator=generator)
    matrix = round_to_nearest(weight, Int8Grid(), group_size=96)
    assert torch.all(
        (matrix.dense() - weight).abs() <= matrix.scale * 0.5001
    )  # 0.0001: rounding of the division


def test_codes_in_groups_of_32_are_those_of_llama_cpp(generator):
    gguf = pytest.importorskip("gguf")
    weight = torch.randn(16, 96, generator=generator)
    matrix = round_to_nearest(weight, Int8Grid(), group_size=32)
    blocks = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q8_0).reshape(16, 3, 34)
    theirs = torch.from_numpy(np.ascontiguousarray(blocks[..., 2:]).view(np.int8)).flatten(1)
    n_other = int((theirs != matrix.codes).sum())
    assert n_other <= 2  # a quotient near a half may round either way
    assert torch.all((theirs.int() - matrix.codes.int()).abs() <= 1)
