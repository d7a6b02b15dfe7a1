import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from scratchlm.core.errors import ConfigError
from scratchlm.quantization import grids
from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.int4 import Int4Grid
from scratchlm.quantization.int8 import Int8Grid
from scratchlm.quantization.nf4 import NF4Grid

GRIDS = [Int8Grid(), Int4Grid(), Int4Grid(asymmetric=True), NF4Grid()]


@given(st.integers(0, 2**32 - 1), st.sampled_from(GRIDS), st.floats(-30, 30))
def test_every_code_is_that_of_the_nearest_number_on_the_grid(seed, grid, exponent):
    groups = torch.randn(2, 32, generator=torch.Generator().manual_seed(seed)) * 2**exponent
    fit = grid.fit(groups)
    n_codes = 2**grid.bits
    every_code = torch.arange(n_codes) - (128 if grid.bits == 8 else 0)
    every_code = every_code[1:] if grid.bits == 8 else every_code  # -128 is not used
    points = grid.decode(every_code.expand(2, -1), fit)  # (2, codes)
    nearest = (groups[..., None] - points[:, None]).abs().amin(dim=-1)  # (2, 32)
    error = (grid.decode(grid.encode(groups, fit), fit) - groups).abs()
    assert torch.all(error <= nearest + 1e-6 * groups.abs().amax())  # a tie may go either way


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
def test_a_group_of_zeros_stays_zero(grid):
    assert torch.equal(round_to_nearest(torch.zeros(2, 64), grid, group_size=32).dense(), torch.zeros(2, 64))


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: type(grid).__name__)
def test_one_row_at_a_time_gives_the_same_matrix(grid, generator, monkeypatch):
    weight = torch.randn(5, 64, generator=generator)
    whole = round_to_nearest(weight, grid, group_size=32)
    monkeypatch.setattr(grids, "ROUNDED_AT_ONCE", 64)
    assert torch.equal(round_to_nearest(weight, grid, group_size=32).dense(), whole.dense())


@pytest.mark.parametrize(
    ("weight", "what"),
    [
        (torch.zeros(64), "shape"),
        (torch.zeros(2, 64, dtype=torch.int8), "torch.int8"),
        (torch.full((2, 64), torch.nan), "NaN"),
    ],
)
def test_what_cannot_be_quantized_is_refused(weight, what):
    with pytest.raises(ConfigError, match=what):
        round_to_nearest(weight, Int8Grid(), group_size=32)
