"""GPTQ: round a matrix column by column, and let the columns to come make up for each rounding error.

Rounding to nearest keeps each weight close to its value. What matters is the layer's output W x, though. Given
examples of x, the error of a column that is already rounded can be reduced by changing the columns that are not,
because the inputs are correlated.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from scratchlm.core.errors import DataError
from scratchlm.quantization.grids import Grid, check_weights, to_matrix
from scratchlm.quantization.matrix import QuantizedMatrix

DAMPING = 0.01  # added to the diagonal, relative to its mean: Frantar et al. 2022, section 3.3
CORRECTED_AT_ONCE = 128  # columns corrected immediately; the others once per this many ("lazy batches")


@torch.no_grad()
def round_with_gptq(weight: Tensor, products: Tensor, grid: Grid, *, group_size: int) -> QuantizedMatrix:
    """Quantize a matrix so that its output on the calibration inputs changes little.

    The grid of every group is fitted first, with errors weighted by the inputs' squares. Then the columns are rounded
    in the order of their inputs' size, largest first: these matter most, and have the most columns left that make up
    for their errors.

    Shapes: weight (out, in); products (in, in), the sum of x x^T over the calibration inputs x of the layer.
    Raises: ConfigError for weights that are not finite; DataError for products that are not.
    Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
        Transformers", section 3.3 and algorithm 1; the order is `act-order` of the authors' program.
    """
    check_weights(weight)
    n_in = weight.shape[1]
    squares = products.diagonal()  # of the inputs, summed
    squares = squares + DAMPING * squares.mean()  # an input that is zero here need not be so in use
    groups, importance = torch.split(weight.float(), group_size, dim=1), torch.split(squares, group_size)
    fits = [grid.fit(*part) for part in zip(groups, importance, strict=True)]
    order = squares.argsort(descending=True, stable=True)
    # The weights that are not rounded yet, adjusted for earlier rounding errors.
    left = weight.float()[:, order]
    factor = _inverse_factor(products[order][:, order])  # (in, in), upper triangle
    codes = torch.empty_like(left)
    for start in range(0, n_in, CORRECTED_AT_ONCE):
        end = min(start + CORRECTED_AT_ONCE, n_in)
        errors = torch.empty_like(left[:, start:end])
        for column in range(start, end):
            fit, here = fits[int(order[column]) // group_size], slice(column, column + 1)
            codes[:, here] = grid.encode(left[:, here], fit)
            error = (left[:, here] - grid.decode(codes[:, here], fit)) / factor[column, column]  # (out, 1)
            left[:, column + 1 : end] -= error * factor[column, column + 1 : end]
            errors[:, column - start] = error[:, 0]
        left[:, end:] -= errors @ factor[start:end, end:]
    offsets = [fit.offset for fit in fits if fit.offset is not None]
    return to_matrix(
        codes[:, order.argsort()],
        torch.cat([fit.scale for fit in fits], dim=1),  # (out, in / G)
        torch.cat(offsets, dim=1) if offsets else None,
        grid,
    )


def sum_of_products(inputs: Iterable[Tensor]) -> Tensor:
    """Sum x x^T over all input vectors of a layer.

    Shapes: inputs (..., in) each -> (in, in) float32.
    Raises: DataError when there are none.
    """
    total: Tensor | None = None
    for x in inputs:
        product = _product(x)
        total = product if total is None else total.add_(product)
    if total is None:
        raise DataError("GPTQ needs calibration inputs, got none; use a longer calibration text.")
    return total


@contextlib.contextmanager
def input_products(module: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Sum x x^T over the inputs of every linear layer inside a module, for the duration of a with block.

    Layers that read the same tensor, such as queries, keys and values, share one sum.
    """
    products: dict[str, Tensor] = {}
    latest: tuple[Tensor | None, str] = (None, "")  # the input read last, and its first reader

    def watch(name: str, x: Tensor) -> None:
        nonlocal latest
        if latest[0] is x:
            products[name] = products[latest[1]]  # the same tensor, which grows in place
            return
        latest = (x, name)
        product = _product(x)
        products[name] = products[name].add_(product) if name in products else product

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        yield products
    finally:
        for handle in handles:
            handle.remove()


def _product(x: Tensor) -> Tensor:
    rows = x.flatten(0, -2).float()
    return rows.T @ rows


def _inverse_factor(products: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse, whose rows say how columns make up for an error."""
    if not bool(products.isfinite().all()):
        raise DataError("the calibration inputs overflow float32; use an undamaged model or another text.")
    damped = products.to(torch.float64, copy=True)
    mean = damped.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    damped.diagonal().add_(DAMPING * mean)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
