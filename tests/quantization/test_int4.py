import pytest
import torch

from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.int4 import Int4Grid


def error(weight: torch.Tensor, found: torch.Tensor) -> float:
    return float((found - weight).square().mean().sqrt())


@pytest.fixture
def weight(generator):
    return torch.randn(64, 128, generator=generator) * 0.02


def test_the_error_is_below_that_of_llama_cpp_s_own_rounding(weight):
    """Same layout, same groups: the search over grids must pay; its scales are not even rounded to half precision."""
    gguf = pytest.importorskip("gguf")
    types = gguf.GGMLQuantizationType
    for kind, asymmetric in ((types.Q4_0, False), (types.Q4_1, True)):
        theirs = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
        ours = round_to_nearest(weight, Int4Grid(asymmetric=asymmetric), group_size=32).dense()
        assert error(weight, ours) < 0.95 * error(weight, torch.from_numpy(theirs))


def test_an_offset_lowers_the_error_of_weights_off_zero(weight):
    shifted = weight + 0.05
    symmetric, asymmetric = (
        error(shifted, round_to_nearest(shifted, Int4Grid(asymmetric=chosen), group_size=64).dense())
        for chosen in (False, True)
    )
    assert asymmetric < 0.7 * symmetric


def test_smaller_groups_have_a_smaller_error(weight):
    errors = [
        error(weight, round_to_nearest(weight, Int4Grid(), group_size=n).dense()) for n in (32, 64, 128)
    ]
    assert errors == sorted(errors)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_weights_on_such_a_grid_are_exact(asymmetric, generator):
    codes = torch.randint(0, 16, (8, 4, 32), generator=generator)
    codes[..., 0], codes[..., 1] = 0, 15  # so that the range of each group is known
    scale = torch.rand(8, 4, 1, generator=generator) + 0.5
    offset = torch.randn(8, 4, 1, generator=generator) if asymmetric else -8 * scale
    weight = (codes * scale + offset).flatten(1)
    found = round_to_nearest(weight, Int4Grid(asymmetric=asymmetric), group_size=32).dense()
    torch.testing.assert_close(found, weight, rtol=0, atol=2e-5)  # sums of 32 products of numbers up to 24
