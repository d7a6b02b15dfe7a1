import pytest
import torch

from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.matrix import unpack_nibbles
from scratchlm.quantization.nf4 import NF4_TABLE, NF4Grid


def test_the_table_is_that_of_the_quantiles_of_a_normal_distribution():
    """Dettmers et al. 2023, section 3, and their code: 8 quantiles above zero, 7 below, divided by the largest."""
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    farthest = (
        0.9677083  # (1 - 1/32 + 1 - 1/30) / 2: the mean of the outermost probabilities of the two sides
    )
    above = normal.icdf(torch.linspace(farthest, 0.5, 9, dtype=torch.float64)[:-1])
    below = -normal.icdf(torch.linspace(farthest, 0.5, 8, dtype=torch.float64)[:-1])
    values = torch.cat([below, torch.zeros(1, dtype=torch.float64), above]).sort().values
    torch.testing.assert_close(
        torch.tensor(NF4_TABLE, dtype=torch.float64), values / values.max(), rtol=0, atol=1e-6
    )


def test_codes_are_the_nearest_entries_of_the_table(generator):
    """The independent formula: of all sixteen products with the largest absolute value, the nearest one."""
    weight = torch.randn(8, 128, generator=generator)
    matrix = round_to_nearest(weight, NF4Grid(), group_size=64)
    largest = weight.view(8, 2, 64).abs().amax(dim=-1)
    assert torch.equal(matrix.scale, largest)
    points = torch.tensor(NF4_TABLE) * largest[..., None, None]  # (8, 2, 1, 16)
    expected = (weight.view(8, 2, 64, 1) - points).abs().argmin(dim=-1)
    assert torch.equal(unpack_nibbles(matrix.codes, 2).view(8, 2, 64).long(), expected)


def test_codes_are_used_about_equally_often_by_normal_weights(generator):
    weight = torch.randn(512, 64, generator=generator)
    counts = unpack_nibbles(round_to_nearest(weight, NF4Grid(), group_size=64).codes, 1).flatten().bincount()
    # The ends hold the few weights beside the largest one; 1/16 is the share of each code in the paper's design.
    assert torch.all(counts[2:-2] / counts.sum() > 0.6 / 16)
    assert torch.all(counts[2:-2] / counts.sum() < 1.6 / 16)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_weight_is_exact(sign):
    weight = torch.linspace(0, sign * 3.0, 32)[None]
    assert round_to_nearest(weight, NF4Grid(), group_size=32).dense()[0, -1] == sign * 3.0
