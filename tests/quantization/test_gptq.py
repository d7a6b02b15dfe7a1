import pytest
import torch
from torch import nn

from scratchlm.core.errors import DataError
from scratchlm.quantization import gptq
from scratchlm.quantization.gptq import input_products, round_with_gptq, sum_of_products
from scratchlm.quantization.grids import round_to_nearest
from scratchlm.quantization.int4 import Int4Grid
from scratchlm.quantization.int8 import Int8Grid
from scratchlm.quantization.nf4 import NF4Grid


@pytest.fixture
def weight(generator):
    return torch.randn(24, 192, generator=generator) * 0.05


@pytest.fixture
def inputs(generator):
    """Correlated inputs, as those of a language model's layers are."""
    mixing = torch.randn(192, 192, generator=generator) / 14
    return torch.randn(600, 192, generator=generator) @ mixing


def output_error(weight, inputs, found) -> float:
    return float((inputs @ (found - weight).T).norm() / (inputs @ weight.T).norm())


@pytest.mark.parametrize("grid", [Int4Grid(), Int4Grid(asymmetric=True), NF4Grid(), Int8Grid()])
def test_the_output_changes_less_than_with_rounding_to_nearest(weight, inputs, grid):
    size = 192 if grid.bits == 8 else 64
    nearest = round_to_nearest(weight, grid, group_size=size).dense()
    calibrated = round_with_gptq(weight, sum_of_products([inputs]), grid, group_size=size).dense()
    assert output_error(weight, inputs, calibrated) < 0.85 * output_error(weight, inputs, nearest)


def test_inputs_without_correlation_leave_rounding_to_nearest(weight):
    """Then no column can make up for another."""
    found = round_with_gptq(weight, torch.eye(192), Int4Grid(), group_size=64)
    assert torch.equal(found.codes, round_to_nearest(weight, Int4Grid(), group_size=64).codes)


def test_the_result_is_that_of_the_paper_s_formula_one_column_at_a_time(weight, inputs):
    """Optimal brain quantization: equations 2 and 3 of the paper, the inverse updated column by column."""
    products, grid = sum_of_products([inputs]), Int8Grid()
    damped = products.double() + 0.01 * products.double().diagonal().mean() * torch.eye(192)
    left, inverse = weight.double().clone(), damped.inverse()
    fit = grid.fit(weight)
    for column in products.diagonal().argsort(descending=True).tolist():
        code = grid.encode(left[:, column : column + 1].float(), fit)
        step = (left[:, column] - grid.decode(code, fit)[:, 0].double()) / inverse[column, column]
        left -= step[:, None] * inverse[column]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    found = round_with_gptq(weight, products, grid, group_size=192).dense()
    is_other = (found.double() - left).abs() > 1e-5
    assert (
        is_other.float().mean() < 0.01
    )  # a float32 near a half may round the other way, and move what follows


def test_blocks_of_columns_change_nothing_but_speed(weight, inputs, monkeypatch):
    products = sum_of_products([inputs])
    whole = round_with_gptq(weight, products, Int4Grid(), group_size=64)
    monkeypatch.setattr(gptq, "CORRECTED_AT_ONCE", 64)
    parts = round_with_gptq(weight, products, Int4Grid(), group_size=64)
    assert (whole.codes != parts.codes).float().mean() < 0.01


def test_products_are_summed_over_all_calls_of_every_layer(generator):
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.c(self.a(x) * self.b(x))

    module, batches = Layers(), [torch.randn(2, 3, 4, generator=generator) for _ in range(2)]
    with input_products(module) as products:
        for x in batches:
            module(x)
    rows = torch.cat(batches).flatten(0, 1)
    inner = module.a(rows) * module.b(rows)
    torch.testing.assert_close(products["a"], rows.T @ rows)
    assert products["b"] is products["a"]
    torch.testing.assert_close(products["c"], inner.T @ inner)
    module(batches[0])  # the hooks are gone
    torch.testing.assert_close(products["a"], rows.T @ rows)


def test_inputs_that_are_always_zero_do_no_harm(weight, inputs):
    inputs[:, :5] = 0
    found = round_with_gptq(weight, sum_of_products([inputs]), Int4Grid(), group_size=64).dense()
    assert bool(found.isfinite().all())


def test_calibration_without_inputs_or_with_infinite_ones_is_refused(weight):
    with pytest.raises(DataError, match="got none"):
        sum_of_products([])
    with pytest.raises(DataError, match="overflow"):
        round_with_gptq(weight, torch.full((192, 192), torch.inf), Int4Grid(), group_size=64)
